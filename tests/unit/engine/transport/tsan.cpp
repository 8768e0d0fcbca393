// ThreadSanitizer cannot see inside the distribution's libzmq, which hands messages between OS
// threads through atomics of its own, and takes that for races. Only its frames are excused.
extern "C" const char* __tsan_default_suppressions();   // NOLINT: the name is the sanitizer's
extern "C" const char* __tsan_default_suppressions() {  // NOLINT
    return "called_from_lib:libzmq.so.5\nrace:libzmq.so.5\n";
}
