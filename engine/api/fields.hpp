#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/json.hpp"
#include "engine/base/result.hpp"
#include "engine/base/uuid.hpp"

namespace heddle::api {

/// Reads the members of one JSON object from outside. A member that is null counts as absent. The
/// first error is kept and names its field by path ("config.recursion_limit"); readers return their
/// default from then on, so a handler reads all it wants and checks once, with finish().
class Fields {
public:
    /// @param object  must outlive it. @param path  of the object itself, empty for the body
    explicit Fields(const base::Json& object, std::string path = {});

    /// @return nullptr if absent or null
    const base::Json* find(std::string_view name);
    std::optional<std::string> text(std::string_view name);
    std::optional<bool> flag(std::string_view name);
    std::optional<std::int64_t> integer(std::string_view name,
                                        std::int64_t least,
                                        std::int64_t most);
    std::optional<double> number(std::string_view name);
    /// @return nullptr if absent
    const base::Json* object(std::string_view name);
    const base::Json* array(std::string_view name);
    /// A list of strings, at most `most` of them.
    std::optional<std::vector<std::string>> texts(std::string_view name, std::size_t most = 1000);
    /// One of `choices`. @return its index
    std::optional<std::size_t> choice(std::string_view name,
                                      const std::vector<std::string_view>& choices);
    template <class IdType>
    std::optional<IdType> id(std::string_view name) {
        const auto value = text(name);
        if (!value) {
            return std::nullopt;
        }
        const auto parsed = IdType::parse(*value);
        if (!parsed) {
            refuse(name, "must be a UUID");
        }
        return parsed;
    }

    /// Records an error about `name`: message "NAME PROBLEM".
    void refuse(std::string_view name,
                std::string_view problem,
                base::ErrorCode code = base::ErrorCode::invalid_argument);
    /// Records that the API knows `name` and that we do not obey it.
    void refuse_unsupported(std::string_view name, std::string_view why = "is not supported");
    void keep(base::Status status);
    [[nodiscard]] std::string path_of(std::string_view name) const;

    /// The first error; else, for the first member that was never asked for,
    /// invalid_argument "NAME is not a known field".
    base::Status finish();

private:
    const base::Json& object_;
    std::string path_;
    std::vector<std::string_view> known_;
    std::optional<base::Error> error_;
};

/// The request body as an object. An empty body is {}.
/// @return bad_request if it is no JSON, invalid_argument if it is no object
base::Result<base::Json> parse_body(std::string_view body);

}  // namespace heddle::api
