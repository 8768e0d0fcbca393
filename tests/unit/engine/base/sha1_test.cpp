#include "engine/base/sha1.hpp"

#include <string>

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace heddle::base {
namespace {

struct Vector {
    std::size_t length;  ///< of "abc...z" again and again
    const char* digest;
};

// Around the ends of blocks, where the padding needs one block or two. From Python's hashlib.
constexpr Vector kVectors[] = {
    {0, "da39a3ee5e6b4b0d3255bfef95601890afd80709"},
    {3, "a9993e364706816aba3e25717850c26c9cd0d89d"},
    {55, "a617d006d1ca12671785098a19a87fe58443bde9"},
    {56, "4ad5bb7ae3c4024768d364b77c52128ea3cffebe"},
    {63, "fc8a5ab77259625085ead3ec96515b3b8d933fad"},
    {64, "93249d4c2f8903ebf41ac358473148ae6ddd7042"},
    {65, "cf2a63cc308225cf07b498d2309a01dd0df52f67"},
    {119, "edd0f1133d0e4ca5f3e98bb7e0295f31d20d2cdb"},
    {120, "23a58eee587aa1f50d19a969ab36a3fe3e88c393"},
    {128, "3698f9beb7cdf5b1e1ce786672fb234143d4df89"},
    {1000, "0c1e754ad8a0130e18bf2d3b0a57e29ad95e75cd"},
};

TEST(Sha1, AgreesWithAnotherImplementation) {
    for (const auto& [length, digest] : kVectors) {
        std::string text;
        while (text.size() < length) {
            text += static_cast<char>('a' + text.size() % 26);
        }
        std::string hex;
        for (const auto byte : sha1(text)) {
            hex += fmt::format("{:02x}", byte);
        }
        EXPECT_EQ(hex, digest) << length;
    }
}

}  // namespace
}  // namespace heddle::base
