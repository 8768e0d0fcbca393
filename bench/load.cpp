#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

#include "bench/load_loop.hpp"
#include "bench/load_options.hpp"

namespace heddle::bench {
namespace {

double microseconds(std::uint64_t nanoseconds) {
    return static_cast<double>(nanoseconds) / 1000.0;
}

double rate_of(const LoadResult& result) {
    const auto count = static_cast<double>(result.latency.count());
    return result.measured_s > 0 ? count / result.measured_s : 0.0;
}

std::string number(double value) {
    char text[64];
    std::snprintf(text, sizeof text, "%.3f", value);
    return text;
}

std::string quoted(const std::string& text) {
    std::string out = "\"";
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (c == '"' || c == '\\') {
            out += '\\';
            out += c;
        } else if (byte < 0x20 || byte >= 0x7F) {
            // Answers may hold any bytes; the report stays ASCII, one escape per byte.
            char escape[8];
            std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(byte));
            out += escape;
        } else {
            out += c;
        }
    }
    return out + '"';
}

std::string json_of(const Options& options, const LoadResult& result) {
    const auto integer = [](std::uint64_t value) { return std::to_string(value); };
    const auto& latency = result.latency;
    std::string out = "{\"connections\": " + integer(options.connections);
    out += ", \"requests\": " + integer(latency.count());
    out += ", \"seconds\": " + number(result.measured_s);
    out += ", \"rps\": " + number(rate_of(result));
    out += ", \"latency_us\": {\"min\": " + number(microseconds(latency.min()));
    out += ", \"mean\": " + number(latency.mean() / 1000.0);
    for (const auto& [name, quantile] :
         {std::pair{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p999", 0.999}}) {
        out +=
            std::string{", \""} + name + "\": " + number(microseconds(latency.quantile(quantile)));
    }
    out += ", \"max\": " + number(microseconds(latency.max())) + "}";
    out += ", \"sent_all\": " + integer(result.sent_all);
    out += ", \"answered_all\": " + integer(result.answered_all);
    out += ", \"connects\": " + integer(result.connects);
    out += ", \"body_bytes\": " + integer(result.body_bytes);
    out += ", \"cpu_seconds\": " + number(result.cpu_s);
    out += ", \"seed\": " + integer(options.seed);
    out += ", \"statuses\": {";
    for (const auto& [status, count] : result.statuses) {
        out +=
            (out.ends_with('{') ? "\"" : ", \"") + std::to_string(status) + "\": " + integer(count);
    }
    out += "}, \"error_count\": " + integer(result.error_count()) + ", \"errors\": {";
    for (const auto& [kind, count] : result.errors) {
        out += (out.ends_with('{') ? "" : ", ") + quoted(kind) + ": {\"count\": " + integer(count) +
               ", \"first\": " + quoted(result.examples.at(kind)) + "}";
    }
    return out + "}}\n";
}

void print_for_people(const Options& options, const LoadResult& result) {
    const auto& latency = result.latency;
    std::printf("%llu requests in %.3f s over %u connections: %.0f requests/s\n",
                static_cast<unsigned long long>(latency.count()), result.measured_s,
                options.connections, rate_of(result));
    std::printf(
        "latency us: p50 %.1f  p90 %.1f  p99 %.1f  max %.1f; generator's processor %.0f %%\n",
        microseconds(latency.quantile(0.5)), microseconds(latency.quantile(0.9)),
        microseconds(latency.quantile(0.99)), microseconds(latency.max()),
        result.measured_s > 0 ? 100 * result.cpu_s / result.measured_s : 0.0);
}

void print_errors(const LoadResult& result) {
    for (const auto& [kind, count] : result.errors) {
        std::fprintf(stderr, "heddle-load: %llu errors of kind %s; the first: %s\n",
                     static_cast<unsigned long long>(count), kind.c_str(),
                     result.examples.at(kind).c_str());
    }
}

bool write_series(const std::string& path, const LoadResult& result) {
    if (path.empty()) {
        return true;
    }
    std::ofstream file{path};
    for (const auto latency : result.series) {
        file << latency << '\n';
    }
    return static_cast<bool>(file.flush());
}

bool write_json(const std::string& path, const std::string& json) {
    if (path == "-") {
        return std::fputs(json.c_str(), stdout) >= 0;
    }
    std::ofstream file{path};
    file << json;
    return static_cast<bool>(file.flush());
}

int run(int argc, char** argv) {
    const auto options = parse_options(argc, argv);
    if (!options) {
        return 2;
    }
    LoadLoop loop{*options};
    const LoadResult result = loop.run();

    print_errors(result);
    if (options->json_file != "-") {
        print_for_people(*options, result);
    }
    bool stored = write_series(options->latencies_file, result);
    if (!options->json_file.empty()) {
        stored = write_json(options->json_file, json_of(*options, result)) && stored;
    }
    if (!stored) {
        std::fputs("heddle-load: a result file could not be written\n", stderr);
    }
    // A run without a single right answer has measured nothing, whatever the error counts say.
    const bool right = result.error_count() == 0 && result.latency.count() > 0;
    return right && stored ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace
}  // namespace heddle::bench

int main(int argc, char** argv) {
    return heddle::bench::run(argc, argv);
}
