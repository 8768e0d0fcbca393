#include "engine/scheduler/resume.hpp"

#include <algorithm>
#include <set>

#include <fmt/format.h>

namespace heddle::scheduler {
namespace {

using base::Json;

constexpr std::size_t kIdChars = 32;

bool is_interrupt_id(std::string_view text) noexcept {
    return text.size() == kIdChars && std::all_of(text.begin(), text.end(), [](char c) {
               return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
           });
}

std::set<std::string> ids_of(std::string_view interrupts) {
    std::set<std::string> ids;
    const auto tasks = base::parse_stored_json(interrupts);
    if (!tasks || !tasks->is_object()) {
        return ids;
    }
    for (const auto& task : *tasks) {
        for (const auto& interrupt : task) {
            const auto id =
                interrupt.is_object() ? interrupt.value("id", std::string{}) : std::string{};
            if (!id.empty()) {
                ids.insert(id);
            }
        }
    }
    return ids;
}

base::Error refuse(std::string problem) {
    return {base::ErrorCode::invalid_argument, "command.resume: " + std::move(problem),
            "command.resume"};
}

}  // namespace

bool is_resume_map(const Json& resume) noexcept {
    if (!resume.is_object() || resume.empty()) {
        return false;
    }
    const auto& members = resume.get_ref<const Json::object_t&>();
    return std::all_of(members.begin(), members.end(),
                       [](const auto& member) { return is_interrupt_id(member.first); });
}

base::Result<std::map<std::string, Json>> address_resume(const Json& resume,
                                                         std::string_view interrupts) {
    const auto asked = ids_of(interrupts);
    if (asked.empty()) {
        return refuse("the thread waits for no answer; to go on from a breakpoint send input null");
    }
    std::map<std::string, Json> answers;
    if (!is_resume_map(resume)) {
        if (asked.size() > 1) {
            return refuse(
                fmt::format("the thread waits for {} answers; name each by the id of its "
                            "interrupt",
                            asked.size()));
        }
        answers.emplace(*asked.begin(), resume);
        return answers;
    }
    for (const auto& [id, answer] : resume.get_ref<const Json::object_t&>()) {
        if (!asked.contains(id)) {
            return refuse(fmt::format("the thread does not wait for an answer to {}", id));
        }
        answers.emplace(id, answer);
    }
    return answers;
}

}  // namespace heddle::scheduler
