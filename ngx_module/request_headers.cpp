#include "ngx_module/request_headers.hpp"

#include <algorithm>
#include <array>

namespace heddle::ngx {

namespace {

constexpr std::array<std::string_view, 10> kHopByHop = {
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "proxy-authenticate",
    "te",
    "transfer-encoding",
    "trailer",
    "upgrade",
    "expect",
};

bool equal_ignoring_case(std::string_view a, std::string_view b) {
    return a.size() == b.size() && ngx_strncasecmp(as_ngx(a).data, as_ngx(b).data, a.size()) == 0;
}

/// Whether a Connection header's value lists `name`.
bool lists(std::string_view value, std::string_view name) {
    while (!value.empty()) {
        auto item = value.substr(0, value.find(','));
        value.remove_prefix(std::min(item.size() + 1, value.size()));
        while (!item.empty() && (item.front() == ' ' || item.front() == '\t')) {
            item.remove_prefix(1);
        }
        while (!item.empty() && (item.back() == ' ' || item.back() == '\t')) {
            item.remove_suffix(1);
        }
        if (equal_ignoring_case(item, name)) {
            return true;
        }
    }
    return false;
}

/// The engine refuses a frame with any other name, so it must not be sent one. nginx lets such
/// names through only with `ignore_invalid_headers off`.
bool is_token(std::string_view name) {
    constexpr std::string_view kMarks = "!#$%&'*+-.^_`|~";
    return !name.empty() && std::all_of(name.begin(), name.end(), [=](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
               kMarks.find(c) != std::string_view::npos;
    });
}

template <class Visit>
void for_each_header(ngx_http_request_t* r, Visit visit) {
    const ngx_table_elt_t* connection = r->headers_in.connection;
    std::string_view listed = connection == nullptr ? "" : view(connection->value);
    if (equal_ignoring_case(listed, "keep-alive") || equal_ignoring_case(listed, "close")) {
        listed = {};  // what nearly all clients send, and it names no header of theirs
    }
    for (const ngx_list_part_t* part = &r->headers_in.headers.part; part != nullptr;
         part = part->next) {
        const auto* headers = static_cast<const ngx_table_elt_t*>(part->elts);
        for (ngx_uint_t i = 0; i < part->nelts; i++) {
            const std::string_view name{reinterpret_cast<const char*>(headers[i].lowcase_key),
                                        headers[i].key.len};
            if (headers[i].hash == 0 || is_hop_by_hop(name) || name == "content-length" ||
                !is_token(name) || (!listed.empty() && lists(listed, name))) {
                continue;
            }
            visit(name, view(headers[i].value));
        }
    }
}

}  // namespace

bool is_hop_by_hop(std::string_view name) noexcept {
    return std::find(kHopByHop.begin(), kHopByHop.end(), name) != kHopByHop.end();
}

bool are_headers_within_bounds(ngx_http_request_t* r) noexcept {
    std::size_t count = 0;
    std::size_t bytes = 0;
    for_each_header(r, [&](std::string_view name, std::string_view value) {
        count++;
        bytes += name.size() + value.size();
    });
    return count <= wire::kHeadersMax && bytes <= wire::kHeaderBytesMax;
}

void copy_headers(ngx_http_request_t* r, wire::Headers& headers) {
    headers.reserve(16);
    for_each_header(r, [&](std::string_view name, std::string_view value) {
        headers.emplace_back(name, value);
    });
}

}  // namespace heddle::ngx
