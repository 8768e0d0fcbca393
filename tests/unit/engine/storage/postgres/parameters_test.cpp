#include "engine/storage/postgres/parameters.hpp"

#include <gtest/gtest.h>

namespace heddle::storage::postgres {
namespace {

std::string bytes(std::initializer_list<int> values) {
    std::string text;
    for (const int value : values) {
        text.push_back(static_cast<char>(value));
    }
    return text;
}

// As a parameter.
std::string taken(BinaryArray array) {
    Parameters parameters;
    parameters.add(std::move(array));
    return std::string{parameters[0].value_or("null")};
}

// Expected bytes as array_send() of Postgres 15 writes them.
TEST(BinaryArray, IsWrittenAsPostgresReadsIt) {
    BinaryArray array{ElementType::int4};
    array.add_int4(1);
    array.add_null();
    array.add_int4(-2);
    EXPECT_EQ(taken(std::move(array)),
              bytes({0, 0, 0, 1, 0, 0, 0, 1, 0,   0,   0,   23,  0, 0, 0, 3, 0,   0,   0,   1,
                     0, 0, 0, 4, 0, 0, 0, 1, 255, 255, 255, 255, 0, 0, 0, 4, 255, 255, 255, 254}));
}

TEST(BinaryArray, AnEmptyArrayHasNoDimension) {
    BinaryArray array{ElementType::text};
    EXPECT_EQ(taken(std::move(array)), bytes({0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 25}));
}

TEST(BinaryArray, ItsOnlyElementIsAParameterOfItsOwn) {
    BinaryArray array{ElementType::bytea};
    array.add_bytes(bytes({0, 255}));
    BinaryArray null{ElementType::int8};
    null.add_null();
    Parameters parameters;
    parameters.add_only(std::move(array)).add_only(std::move(null));
    EXPECT_EQ(parameters[0], bytes({0, 255}));
    EXPECT_EQ(parameters[1], std::nullopt);
}

TEST(Parameters, ScalarsAreInNetworkOrder) {
    Parameters parameters;
    parameters.add(std::int64_t{258}).add_bool(true).add_bool(false);
    ASSERT_EQ(parameters.size(), 3U);
    EXPECT_EQ(parameters[0], bytes({0, 0, 0, 0, 0, 0, 1, 2}));
    EXPECT_EQ(parameters[1], bytes({1}));
    EXPECT_EQ(parameters[2], bytes({0}));
}

}  // namespace
}  // namespace heddle::storage::postgres
