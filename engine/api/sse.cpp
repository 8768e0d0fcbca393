#include "engine/api/sse.hpp"

#include <fmt/format.h>

namespace heddle::api {

void append_event(std::string& out,
                  std::string_view event,
                  std::string_view data,
                  std::uint64_t id) {
    out += "event: ";
    out += event;
    out += "\ndata: ";
    out += data;
    out += "\nid: ";
    out += fmt::format_int(id).c_str();
    out += "\n\n";
}

}  // namespace heddle::api
