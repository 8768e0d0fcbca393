#pragma once

#include <cstdint>
#include <string>
#include <string_view>

/// Server-sent events as the LangGraph SDKs read them: fields in the order event, data, id; an id
/// on every event. Heartbeats are comments without the blank line: SDK 1.12.4 and 2.0.0 turn a
/// blank line after them into an empty event.
namespace heddle::api {

inline constexpr std::string_view kHeartbeat = ": heartbeat\n";

/// @param data  compact JSON text: one line
void append_event(std::string& out,
                  std::string_view event,
                  std::string_view data,
                  std::string_view id);

}  // namespace heddle::api
