#include "ngx_module/call.hpp"

#include "ngx_module/pool_peers.hpp"

namespace heddle::ngx {

namespace {

void free_memory(const ngx_chain_t* chain) {
    for (; chain != nullptr; chain = chain->next) {
        ngx_free(chain->buf->start);
    }
}

}  // namespace

Call::~Call() {
    if (peers != nullptr) {
        peers->release(*this, true);
    }
    if (stream.prev != nullptr) {
        ngx_queue_remove(&stream);
    }
    free_memory(busy);
    free_memory(free);
}

}  // namespace heddle::ngx
