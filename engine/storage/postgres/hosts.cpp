#include "engine/storage/postgres/hosts.hpp"

#include <algorithm>
#include <memory>
#include <string_view>

#include <libpq-fe.h>

namespace heddle::storage::postgres {
namespace {

struct Free {
    void operator()(PQconninfoOption* options) const noexcept { PQconninfoFree(options); }
};
using Options = std::unique_ptr<PQconninfoOption, Free>;

std::vector<std::string> split(std::string_view list) {
    std::vector<std::string> parts;
    while (true) {
        const auto comma = list.find(',');
        parts.emplace_back(list.substr(0, comma));
        if (comma == std::string_view::npos) {
            return parts;
        }
        list.remove_prefix(comma + 1);
    }
}

// Options that hold a value for each host; one port may stand for all.
bool is_list(std::string_view keyword) noexcept {
    return keyword == "host" || keyword == "hostaddr" || keyword == "port";
}

std::string part_of(const char* list, std::size_t at) {
    const auto parts = split(list);
    return parts.size() == 1 ? parts.front() : at < parts.size() ? parts[at] : std::string{};
}

void append(std::string& out, std::string_view keyword, const std::string& value) {
    out.append(out.empty() ? "" : " ").append(keyword).append("='");
    for (const char each : value) {
        if (each == '\'' || each == '\\') {
            out += '\\';
        }
        out += each;
    }
    out += '\'';
}

}  // namespace

std::vector<std::string> one_host_each(const std::string& url) {
    const Options options{PQconninfoParse(url.c_str(), nullptr)};
    if (options == nullptr) {
        return {url};
    }
    std::size_t hosts = 1;
    for (const auto* option = options.get(); option->keyword != nullptr; ++option) {
        const std::string_view keyword{option->keyword};
        if (option->val != nullptr && is_list(keyword) && keyword != "port") {
            hosts = std::max(hosts, split(option->val).size());
        }
    }
    if (hosts == 1) {
        return {url};
    }
    std::vector<std::string> each(hosts);
    for (const auto* option = options.get(); option->keyword != nullptr; ++option) {
        for (std::size_t at = 0; option->val != nullptr && at < hosts; ++at) {
            const auto value = is_list(option->keyword) ? part_of(option->val, at) : option->val;
            append(each[at], option->keyword, value);
        }
    }
    return each;
}

}  // namespace heddle::storage::postgres
