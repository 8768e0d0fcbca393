#include "engine/api/sse.hpp"

namespace heddle::api {

void append_event(std::string& out,
                  std::string_view event,
                  std::string_view data,
                  std::string_view id) {
    out += "event: ";
    out += event;
    out += "\ndata: ";
    out += data;
    out += "\nid: ";
    out += id;
    out += "\n\n";
}

}  // namespace heddle::api
