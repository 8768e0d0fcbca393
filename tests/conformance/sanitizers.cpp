// ThreadSanitizer does not see that a mutex was taken over from an owner that died.
extern "C" const char* __tsan_default_suppressions();   // NOLINT
extern "C" const char* __tsan_default_suppressions() {  // NOLINT
    return "mutex:heddle::storage::sqlite::Turn::unlock\n";
}
