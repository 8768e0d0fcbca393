// The published vectors of the protocol (shared/wire/vectors), against this implementation.
#include <fstream>
#include <sstream>

#include <gtest/gtest.h>

#include "shared/wire/messages.hpp"

namespace heddle::wire {
namespace {

struct Vector {
    std::string name;
    std::string side;
    std::string frame;
    std::string text;
};

std::string bytes_of(const std::string& hex) {
    std::string bytes;
    for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
        bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
    }
    return bytes;
}

std::vector<Vector> load(const std::string& file) {
    std::ifstream in{std::string{HEDDLE_WIRE_VECTORS} + "/" + file};
    std::vector<Vector> vectors;
    std::string line;
    while (std::getline(in, line)) {
        if (line.empty() || line.front() == '#') {
            continue;
        }
        std::vector<std::string> cells;
        std::size_t at = 0;
        while (cells.size() < 3) {
            const auto bar = line.find(" | ", at);
            cells.push_back(line.substr(at, bar - at));
            at = bar + 3;
        }
        vectors.push_back({cells[0], cells[1], bytes_of(cells[2]), line.substr(at)});
    }
    return vectors;
}

// Empty if the frame was read; then `again` is what it encodes to.
std::string decode(const Vector& vector, std::string& again) {
    const auto outcome = [&](auto decoded) -> std::string {
        if (const auto* error = std::get_if<DecodeError>(&decoded)) {
            return std::string{error->reason};
        }
        again = encode(std::get<0>(decoded));
        return {};
    };
    return vector.side == "edge" ? outcome(decode_edge(vector.frame))
                                 : outcome(decode_engine(vector.frame));
}

TEST(WireVectors, CanonicalFramesAreReadAndWrittenTheSame) {
    const auto vectors = load("canonical.txt");
    ASSERT_GE(vectors.size(), 20U);
    for (const auto& vector : vectors) {
        std::string again;
        EXPECT_EQ(decode(vector, again), "") << vector.name;
        EXPECT_EQ(again, vector.frame) << vector.name;
    }
}

TEST(WireVectors, OtherFormsOfTheSameAreRead) {
    const auto vectors = load("accepted.txt");
    ASSERT_GE(vectors.size(), 3U);
    for (const auto& vector : vectors) {
        std::string again;
        EXPECT_EQ(decode(vector, again), "") << vector.name;
    }
}

TEST(WireVectors, BadFramesAreRefusedForTheReasonGiven) {
    const auto vectors = load("refused.txt");
    ASSERT_GE(vectors.size(), 25U);
    for (const auto& vector : vectors) {
        std::string again;
        EXPECT_EQ(decode(vector, again), vector.text) << vector.name;
    }
}

}  // namespace
}  // namespace heddle::wire
