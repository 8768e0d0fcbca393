#pragma once

namespace heddle::ngx {

/// Replaces the HTML pages that nginx itself writes in a location with heddle_pass (413 for a body
/// that is too large, 400 for a broken one) by {"detail", "code"}. An error_page for the status
/// goes first.
void install_error_filters() noexcept;

}  // namespace heddle::ngx
