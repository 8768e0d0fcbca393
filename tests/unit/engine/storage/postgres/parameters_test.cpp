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

// Expected bytes as array_send() of Postgres 15 writes them.
TEST(BinaryArray, IsWrittenAsPostgresReadsIt) {
    BinaryArray array{ElementType::int4};
    array.add_int4(1);
    array.add_null();
    array.add_int4(-2);
    EXPECT_EQ(std::move(array).take(),
              bytes({0, 0, 0, 1, 0, 0, 0, 1, 0,   0,   0,   23,  0, 0, 0, 3, 0,   0,   0,   1,
                     0, 0, 0, 4, 0, 0, 0, 1, 255, 255, 255, 255, 0, 0, 0, 4, 255, 255, 255, 254}));
}

TEST(BinaryArray, AnEmptyArrayHasNoDimension) {
    BinaryArray array{ElementType::text};
    EXPECT_EQ(std::move(array).take(), bytes({0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 25}));
}

TEST(BinaryArray, ItsOnlyElementIsAParameterOfItsOwn) {
    BinaryArray array{ElementType::bytea};
    array.add_bytes(bytes({0, 255}));
    EXPECT_EQ(std::move(array).take_only(), bytes({0, 255}));
    BinaryArray null{ElementType::int8};
    null.add_null();
    EXPECT_EQ(std::move(null).take_only(), std::nullopt);
}

TEST(Parameters, ScalarsAreInNetworkOrder) {
    Parameters parameters;
    parameters.add(std::int64_t{258}).add_bool(true);
    ASSERT_EQ(parameters.values().size(), 2U);
    EXPECT_EQ(parameters.values()[0], bytes({0, 0, 0, 0, 0, 0, 1, 2}));
    EXPECT_EQ(parameters.values()[1], bytes({1}));
}

}  // namespace
}  // namespace heddle::storage::postgres
