#include "bench/load_options.hpp"

#include <charconv>
#include <cstdio>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <random>
#include <string_view>

namespace heddle::bench {
namespace {

constexpr const char* kUsage =
    R"(heddle-load: a closed-loop HTTP/1.1 load generator for loopback, one thread.

  --url URL             http://127.0.0.1:PORT/path; {uuid} and {n} are filled in per request
  --method M            GET, or POST if there is a body
  --header "N: V"       may be repeated
  --body TEXT           {uuid} (the same value as in the path) and {n} are filled in
  --body-file FILE      the same from a file
  --connections N       each sends its next request when its answer is complete (1)
  --duration S          measure for S seconds, or
  --requests N          measure N requests
  --warmup S            seconds before that
  --warmup-requests N   requests before that
  --timeout S           longest time of one request (30)
  --status N            the status each answer must have (200)
  --expect TEXT         each body must contain TEXT
  --sequence            one connection, one request after another
  --latencies FILE      one line per measured request, in order of completion: nanoseconds
  --json FILE           the result as JSON; - is stdout
  --seed N              of the uuids

Exit status: 0 if every answer was right, 1 if one was not, 2 for wrong options.
)";

template <class Number>
bool parse_number(const std::string& text, Number& value) {
    const char* end = text.data() + text.size();
    const auto result = std::from_chars(text.data(), end, value);
    return result.ec == std::errc{} && result.ptr == end;
}

bool parse_url(std::string_view url, Options& options) {
    constexpr std::string_view kScheme = "http://";
    if (!url.starts_with(kScheme)) {
        return false;
    }
    url.remove_prefix(kScheme.size());
    const auto slash = url.find('/');
    const auto authority = url.substr(0, slash);
    options.target = slash == std::string_view::npos ? "/" : std::string{url.substr(slash)};
    const auto colon = authority.find(':');
    options.host = std::string{authority.substr(0, colon)};
    if (options.host == "localhost") {
        options.host = "127.0.0.1";
    }
    const auto port = colon == std::string_view::npos ? "80" : authority.substr(colon + 1);
    return options.host.starts_with("127.") && parse_number(std::string{port}, options.port) &&
           options.port != 0 && options.target.find_first_of(" \r\n") == std::string::npos;
}

bool read_file(const std::string& path, std::string& text) {
    std::ifstream file{path, std::ios::binary};
    text.assign(std::istreambuf_iterator<char>{file}, {});
    return file.good() || file.eof();
}

bool add_header(const std::string& value, Options& options) {
    if (value.find_first_of("\r\n") != std::string::npos || value.find(':') == std::string::npos) {
        return false;
    }
    options.headers.push_back(value);
    return true;
}

using Setter = std::function<bool(const std::string&)>;

std::map<std::string, Setter, std::less<>> setters(Options& o) {
    const auto number = [](auto& field) {
        return [&field](const std::string& v) { return parse_number(v, field) && !(field < 0); };
    };
    const auto text = [](std::string& field) {
        return [&field](const std::string& v) {
            field = v;
            return !v.empty();
        };
    };
    return {
        {"--url", [&o](const std::string& v) { return parse_url(v, o); }},
        {"--method", text(o.method)},
        {"--header", [&o](const std::string& v) { return add_header(v, o); }},
        {"--body", text(o.body)},
        {"--body-file", [&o](const std::string& v) { return read_file(v, o.body); }},
        {"--connections", number(o.connections)},
        {"--duration", number(o.duration_s)},
        {"--requests", number(o.requests)},
        {"--warmup", number(o.warmup_s)},
        {"--warmup-requests", number(o.warmup_requests)},
        {"--timeout", number(o.timeout_s)},
        {"--status", number(o.status)},
        {"--expect", text(o.expect)},
        {"--latencies", text(o.latencies_file)},
        {"--json", text(o.json_file)},
        {"--seed", number(o.seed)},
    };
}

const char* fault_of(const Options& options) {
    if (options.host.empty()) {
        return "--url is missing";
    }
    if (options.connections < 1 || options.connections > Options::kConnectionsMax) {
        return "--connections must be 1 to 4096";
    }
    if ((options.duration_s > 0) == (options.requests > 0)) {
        return "exactly one of --duration and --requests must be given";
    }
    if (options.sequence && options.connections != 1) {
        return "--sequence has one connection";
    }
    if (options.timeout_s <= 0) {
        return "--timeout must be more than 0";
    }
    return nullptr;
}

}  // namespace

std::optional<Options> parse_options(int argc, char** argv) {
    Options options;
    const auto known = setters(options);
    bool method_given = false;
    for (int index = 1; index < argc; ++index) {
        const std::string_view name = argv[index];
        if (name == "--help") {
            std::fputs(kUsage, stderr);
            return std::nullopt;
        }
        if (name == "--sequence") {
            options.sequence = true;
            continue;
        }
        const auto setter = known.find(name);
        if (setter == known.end() || index + 1 == argc || !setter->second(argv[index + 1])) {
            std::fprintf(stderr, "heddle-load: wrong option or value: %s %s (see --help)\n",
                         argv[index], index + 1 < argc ? argv[index + 1] : "");
            return std::nullopt;
        }
        method_given = method_given || name == "--method";
        ++index;
    }
    if (const char* fault = fault_of(options)) {
        std::fprintf(stderr, "heddle-load: %s (see --help)\n", fault);
        return std::nullopt;
    }
    if (!method_given && !options.body.empty()) {
        options.method = "POST";
    }
    if (options.seed == 0) {
        std::random_device device;
        options.seed = (std::uint64_t{device()} << 32) | device();
    }
    return options;
}

}  // namespace heddle::bench
