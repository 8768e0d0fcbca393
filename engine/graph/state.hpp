#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/base/result.hpp"
#include "engine/graph/item.hpp"
#include "engine/graph/message.hpp"

namespace heddle::graph {

/// How writes of one superstep are merged into a channel.
enum class Reducer : std::uint8_t {
    last_value,    ///< replaces; two writes in one superstep are a graph_error, as in LangGraph
    append,        ///< a list; a write appends its elements (a non-list appends itself)
    add_messages,  ///< LangGraph's add_messages: by id replaces in place, else appends;
                   ///< {type: "remove", id} deletes; a missing id is minted
};

struct ChannelSpec {
    std::string name;
    Reducer reducer = Reducer::last_value;
    base::Json initial{};  ///< null: the channel is absent from values until first written
    /// JSON type a last_value write must have ("string", "number", "integer", "boolean", "array",
    /// "object"), null always being allowed; empty: any.
    std::string type{};
};

/// The channels of a graph, in the order of the agent file. Immutable, shared by all its states.
using Channels = std::vector<ChannelSpec>;

/// One write of a node (or of the input) to one channel.
struct ChannelWrite {
    std::string channel;
    base::Json value;
};

/// A write that was checked and brought into the channel's form: messages normalised, ids minted,
/// texts made. What events show and what the state takes over are the same items.
struct PreparedWrite {
    std::size_t channel = 0;    ///< index in Channels
    std::vector<Item> items;    ///< elements for a list channel, else the one value
    bool has_removals = false;  ///< some item is a remove message
};

using PreparedInput = std::shared_ptr<const std::vector<PreparedWrite>>;

/// Checks and prepares the writes of one task.
/// @param path  prepended to the field of errors: "input", or empty for a node's writes
/// @return invalid_argument with the field (unknown channel, wrong type, bad message)
base::Result<std::vector<PreparedWrite>> prepare_writes(const Channels& channels,
                                                        std::vector<ChannelWrite> writes,
                                                        std::string_view path,
                                                        IdMint& mint);

/// Turns a run's input into writes. @return invalid_argument unless it is an object of channels
base::Result<std::vector<ChannelWrite>> input_writes(base::Json input);

/// Checks and prepares a run's input: what the API does before it accepts a run.
/// @param run  whose id messages without one get theirs from; nil: random ones
/// @return invalid_argument with the field ("input.messages[2].role")
base::Result<PreparedInput> prepare_input(const Channels& channels,
                                          base::Json input,
                                          const base::RunId& run);

/// Channel values of one thread. A value type: copying is O(number of channels), contents are
/// shared and copied on write. Belongs to one shard.
class State {
public:
    /// Takes back one apply(). Valid only for the state it came from, and only until its next
    /// change.
    class Undo;

    explicit State(std::shared_ptr<const Channels> channels);

    [[nodiscard]] const Channels& channels() const noexcept { return *channels_; }
    /// @return nullptr if the channel is unknown or absent; for a list channel use find_list
    [[nodiscard]] const Item* find_value(std::string_view channel) const noexcept;
    /// @return nullptr unless the channel is a list (append, add_messages)
    [[nodiscard]] const std::vector<Item>* find_list(std::string_view channel) const noexcept;
    /// Whether the messages channel with this index holds a message with this id. O(1).
    [[nodiscard]] bool has_message(std::size_t channel, std::string_view id) const;

    /// Bytes of all values as text, roughly what to_text() gives. O(channels).
    [[nodiscard]] std::size_t bytes() const noexcept;
    /// The whole state as compact JSON text: concatenates cached texts, O(bytes).
    [[nodiscard]] std::string to_text() const;
    /// The whole state as a value: O(state), for small uses (tests).
    [[nodiscard]] base::Json to_json() const;

    /// Merges the writes of one superstep, in task order, and records what changed. Appending costs
    /// O(what is appended), unless a copy of this state shares the list; replacing a message too.
    /// Removing messages costs O(list).
    /// @param delta  out: text for JournalRow::data, O(what changed)
    /// @param undo   out, may be null
    /// @return graph_error naming the channel; the state is unchanged then
    base::Status apply(const std::vector<PreparedWrite>& writes, std::string& delta, Undo* undo);
    /// prepare_writes() and apply() in one, with random ids.
    base::Status apply(const std::vector<ChannelWrite>& writes, std::string& delta);
    void revert(Undo undo);

    /// @return text for JournalRow::data that holds the whole state
    [[nodiscard]] std::string to_snapshot() const;
    /// Replays one JournalRow::data (delta or snapshot; the events behind it are passed over).
    /// Channels that the graph no longer has are
    /// passed over, as in LangGraph.
    /// @return internal if the data is broken or does not fit the state
    base::Status replay(std::string_view data);

private:
    struct List {
        std::vector<Item> items;
        /// Messages only. The keys lie in the items, which do not move when a vector grows.
        std::unordered_map<std::string_view, std::size_t> by_id;
        std::size_t bytes = 0;  ///< of the items' texts

        void push(Item item);
        /// @return the item that was there
        Item replace(std::size_t at, Item item);
        void pop();
    };
    struct Slot {
        // One of the two, by the channel's reducer. Null value: absent; list is never null.
        std::shared_ptr<const Item> value;
        std::shared_ptr<List> list;  // NOLINT: copied before a write when shared
    };
    struct Merge;
    struct Texts;

    static constexpr std::size_t kUnknown = static_cast<std::size_t>(-1);

    /// @return kUnknown if there is none of that name
    [[nodiscard]] std::size_t index_of(std::string_view channel) const noexcept;
    List& own_list(std::size_t channel);
    void append_item(std::size_t channel, Item item);
    void append_value_text(std::string& out, std::size_t channel) const;
    base::Status merge(std::size_t channel,
                       const std::vector<const PreparedWrite*>& writes,
                       std::string& delta,
                       Undo* undo);
    void merge_appending(std::size_t channel,
                         const std::vector<const PreparedWrite*>& writes,
                         std::string& delta,
                         Undo* undo);
    base::Status merge_removing(std::size_t channel,
                                const std::vector<const PreparedWrite*>& writes,
                                std::string& delta,
                                Undo* undo);
    bool replay_texts(std::string_view row);
    base::Status replay_snapshot(base::Json& values);
    base::Status replay_list(std::size_t channel, base::Json& change);

    std::shared_ptr<const Channels> channels_;
    std::vector<Slot> slots_;
};

class State::Undo {
    friend class State;
    struct Entry {
        std::size_t channel = 0;
        Slot before;  ///< what to put back, when the whole slot was replaced
        bool whole = false;
        std::size_t size_before = 0;  ///< of a list that only grew
        std::vector<std::pair<std::size_t, Item>> replaced;
    };
    std::vector<Entry> entries;
};

}  // namespace heddle::graph
