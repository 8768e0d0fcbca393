#include "ngx_module/route_key.hpp"

#include <algorithm>

#include "shared/wire/messages.hpp"

namespace heddle::ngx {

namespace {

constexpr std::string_view kThreads = "/threads";

bool is_space(char c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/// Walks a JSON text. It only has to find where values end; the engine judges the text.
class JsonWalk {
public:
    explicit JsonWalk(std::string_view text) : text_{text} {}

    bool take(char wanted) {
        while (at_ < text_.size() && is_space(text_[at_])) {
            at_++;
        }
        if (at_ == text_.size() || text_[at_] != wanted) {
            return false;
        }
        at_++;
        return true;
    }

    /// A string's raw inside. false: there is no whole string here.
    bool take_string(std::string_view& inside) {
        if (!take('"')) {
            return false;
        }
        const std::size_t start = at_;
        for (; at_ < text_.size() && text_[at_] != '"'; at_++) {
            at_ += text_[at_] == '\\' ? 1 : 0;
        }
        if (at_ >= text_.size()) {
            return false;
        }
        inside = text_.substr(start, at_ - start);
        at_++;
        return true;
    }

    /// Steps over a value, up to the ',' or '}' behind it.
    bool skip_value() {
        std::size_t depth = 0;
        std::string_view ignored;
        while (at_ < text_.size()) {
            const char c = text_[at_];
            if (c == '"') {
                if (!take_string(ignored)) {
                    return false;
                }
                continue;
            }
            if (depth == 0 && (c == ',' || c == '}')) {
                return true;
            }
            if (c == '{' || c == '[') {
                depth++;
            } else if (c == '}' || c == ']') {
                if (depth == 0) {
                    return false;
                }
                depth--;
            }
            at_++;
        }
        return false;
    }

private:
    std::string_view text_;
    std::size_t at_ = 0;
};

}  // namespace

bool is_name(std::string_view text) noexcept {
    for (const char c : text) {
        if (c < 0x21 || c > 0x7e) {
            return false;
        }
    }
    return !text.empty() && text.size() <= wire::kNameBytesMax;
}

std::uint64_t hash_of(std::string_view text) noexcept {
    std::uint64_t hash = 0xcbf29ce484222325ULL;  // FNV-1a, then the finisher of splitmix64
    for (const char c : text) {
        hash = (hash ^ static_cast<std::uint8_t>(c)) * 0x100000001b3ULL;
    }
    hash = (hash ^ (hash >> 30U)) * 0xbf58476d1ce4e5b9ULL;
    hash = (hash ^ (hash >> 27U)) * 0x94d049bb133111ebULL;
    return hash ^ (hash >> 31U);
}

PathKey read_path(std::string_view path) noexcept {
    PathKey key;
    while (path.size() > 1 && path.back() == '/') {
        path.remove_suffix(1);
    }
    if (path == kThreads) {
        key.starts = Starts::thread;
        return key;
    }
    if (path == "/chat") {
        key.starts = Starts::run;
        return key;
    }
    const auto last = path.substr(std::min(path.rfind('/'), path.size()));
    key.repeats_safely =
        last == "/search" || last == "/count" || last == "/history" || last == "/namespaces";
    if (path.substr(0, kThreads.size()) == kThreads && path[kThreads.size()] == '/') {
        path.remove_prefix(kThreads.size() + 1);
        const auto segment = path.substr(0, path.find('/'));
        path.remove_prefix(segment.size());
        if (segment == "search" || segment == "count" || segment == "prune") {
            return key;
        }
        key.thread_id = segment;
    }
    if (path == "/runs" || path == "/runs/wait" || path == "/runs/stream") {
        key.starts = Starts::run;
    }
    return key;
}

std::string_view find_thread_id(std::string_view json) noexcept {
    JsonWalk walk{json};
    if (!walk.take('{')) {
        return {};
    }
    for (;;) {
        std::string_view name;
        if (!walk.take_string(name) || !walk.take(':')) {
            return {};
        }
        if (name == "thread_id") {
            std::string_view value;
            return walk.take_string(value) && is_name(value) &&
                           value.find('\\') == std::string_view::npos
                       ? value
                       : std::string_view{};
        }
        if (!walk.skip_value() || !walk.take(',')) {
            return {};
        }
    }
}

}  // namespace heddle::ngx
