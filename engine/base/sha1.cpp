#include "engine/base/sha1.hpp"

#include <memory>

#include <openssl/evp.h>

#include "engine/base/assert.hpp"

namespace heddle::base {
namespace {

struct Free {
    void operator()(EVP_MD* digest) const noexcept { EVP_MD_free(digest); }
    void operator()(EVP_MD_CTX* context) const noexcept { EVP_MD_CTX_free(context); }
};

// Looking the algorithm up takes longer than most of what is hashed.
const EVP_MD* algorithm() {
    static const std::unique_ptr<EVP_MD, Free> found{EVP_MD_fetch(nullptr, "SHA1", nullptr)};
    return found.get();
}

}  // namespace

std::array<std::uint8_t, 20> sha1(std::string_view input) {
    thread_local const std::unique_ptr<EVP_MD_CTX, Free> context{EVP_MD_CTX_new()};
    std::array<std::uint8_t, 20> digest{};
    const bool is_done = EVP_DigestInit_ex2(context.get(), algorithm(), nullptr) == 1 &&
                         EVP_DigestUpdate(context.get(), input.data(), input.size()) == 1 &&
                         EVP_DigestFinal_ex(context.get(), digest.data(), nullptr) == 1;
    HEDDLE_ASSERT(is_done);
    return digest;
}

}  // namespace heddle::base
