// libpqxx 6.4 loses the (empty) result of a statement whose connection broke: it throws on its way
// from the C result to its own. A few hundred bytes per lost connection, and only its frames.
extern "C" const char* __lsan_default_suppressions();   // NOLINT: the name is the sanitizer's
extern "C" const char* __lsan_default_suppressions() {  // NOLINT
    return "leak:PQmakeEmptyPGresult\n";
}
// ThreadSanitizer does not see that a mutex was taken over from an owner that died.
extern "C" const char* __tsan_default_suppressions();   // NOLINT
extern "C" const char* __tsan_default_suppressions() {  // NOLINT
    return "mutex:heddle::storage::sqlite::Turn::unlock\n";
}
