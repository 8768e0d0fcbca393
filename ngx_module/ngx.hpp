#pragma once

// The only place that includes nginx's headers: they are C and full of old-style casts.
extern "C" {
#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_http.h>

extern ngx_module_t ngx_http_heddle_module;
}

#include <cstring>
#include <new>
#include <string_view>
#include <utility>

namespace heddle::ngx {

[[nodiscard]] inline std::string_view view(const ngx_str_t& text) noexcept {
    return {reinterpret_cast<const char*>(text.data), text.len};
}

/// nginx's C API takes `u_char*` also where it only reads. `text` must outlive the result.
[[nodiscard]] inline ngx_str_t as_ngx(std::string_view text) noexcept {
    return {text.size(), reinterpret_cast<u_char*>(const_cast<char*>(text.data()))};
}

/// A copy in `pool`; len is 0 and data null if nginx has no memory.
[[nodiscard]] inline ngx_str_t copy_to(ngx_pool_t* pool, std::string_view text) noexcept {
    auto* data = static_cast<u_char*>(ngx_pnalloc(pool, text.empty() ? 1 : text.size()));
    if (data == nullptr) {
        return {0, nullptr};
    }
    std::memcpy(data, text.data(), text.size());
    return {text.size(), data};
}

/// Makes a T that is destroyed with the pool; nullptr if nginx has no memory.
template <class T, class... Args>
[[nodiscard]] T* make_in_pool(ngx_pool_t* pool, Args&&... args) {
    static_assert(alignof(T) <= NGX_ALIGNMENT);
    ngx_pool_cleanup_t* cleanup = ngx_pool_cleanup_add(pool, sizeof(T));
    if (cleanup == nullptr) {
        return nullptr;
    }
    T* object = new (cleanup->data) T(std::forward<Args>(args)...);
    cleanup->handler = [](void* data) { static_cast<T*>(data)->~T(); };
    return object;
}

/// A zeroed T for plain structs; nullptr if nginx has no memory.
template <class T>
[[nodiscard]] T* zeroed_in_pool(ngx_pool_t* pool) noexcept {
    return static_cast<T*>(ngx_pcalloc(pool, sizeof(T)));
}

/// The elements of an ngx_array_t of T.
template <class T>
class ArrayView {
public:
    explicit ArrayView(const ngx_array_t* array) noexcept
        : first_{array == nullptr ? nullptr : static_cast<T*>(array->elts)},
          count_{array == nullptr ? 0 : array->nelts} {}
    [[nodiscard]] T* begin() const noexcept { return first_; }
    [[nodiscard]] T* end() const noexcept { return first_ + count_; }
    [[nodiscard]] std::size_t size() const noexcept { return count_; }
    [[nodiscard]] T& operator[](std::size_t at) const noexcept { return first_[at]; }

private:
    T* first_;
    std::size_t count_;
};

}  // namespace heddle::ngx
