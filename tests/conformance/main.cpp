#include <gtest/gtest.h>

#include "engine/observe/log.hpp"
#include "tests/conformance/other_process.hpp"

int main(int argc, char** argv) {
    heddle::observe::configure_log(heddle::observe::LogLevel::warn, "conformance");
    // The tests of SQLite start this program again as another process that uses the same file.
    if (const int code = heddle::conformance::run_as_other_process(argc, argv); code >= 0) {
        return code;
    }
    testing::InitGoogleTest(&argc, argv);
    return RUN_ALL_TESTS();
}
