#pragma once

#include <utility>

#include <asio/async_result.hpp>
#include <asio/awaitable.hpp>
#include <asio/io_context.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>

#include "engine/base/machine.hpp"
#include "engine/base/unique_function.hpp"

namespace heddle::base {

using Executor = asio::io_context::executor_type;

/// A coroutine that runs on one shard and never moves to another.
template <class T = void>
using Task = asio::awaitable<T, Executor>;

inline constexpr asio::use_awaitable_t<Executor> kUseTask{};

/// Called exactly once, on any OS thread, with the outcome of an asynchronous operation.
template <class T>
using Completion = UniqueFunction<void(T)>;

/// Turns a callback operation of another OS thread into a co_await: calls `start(Completion<T>)`
/// and resumes on the shard that awaits. The operation must call its completion exactly once and
/// owns its own deadline.
template <class T, class Start>
Task<T> from_callback(Start start) {
    const Executor executor = co_await asio::this_coro::executor;
    auto initiate = [executor](auto handler, Start begin) {
        begin(Completion<T>{[executor, h = std::move(handler)](T value) mutable {
            machine::post(executor.context(),
                          [h = std::move(h), value = std::move(value)]() mutable {
                              std::move(h)(std::move(value));
                          });
        }});
    };
    co_return co_await asio::async_initiate<const asio::use_awaitable_t<Executor>, void(T)>(
        std::move(initiate), kUseTask, std::move(start));
}

}  // namespace heddle::base
