#include "runtime/model/wire_size.h"

#include <string>
#include <variant>
#include <vector>

namespace foretoken {
namespace {

// All sizes in words of 8 bytes. A struct's is its data and its pointers; a list of structs has a tag of one word in front.
constexpr int64_t kEnvelope = 1 /* segment table */ + 1 /* root */ + 2 /* Frame */ + 6 /* StreamMessage */;

int64_t Words(int64_t bytes) { return (bytes + 7) / 8; }
template <class T>
int64_t Count(const std::vector<T>& v) {
  return static_cast<int64_t>(v.size());
}
template <class T>
int64_t Structs(const std::vector<T>& v, int64_t words) {
  return 1 + Count(v) * words;
}
int64_t Text(const std::string& s) { return Words(static_cast<int64_t>(s.size()) + 1); }

int64_t BodyOf(const Hello& h) {
  int64_t words = 9 + Text(h.engine) + Text(h.version) + Count(h.features);  // a list of pointers to texts
  for (const std::string& f : h.features) words += Text(f);
  return words;
}
int64_t BodyOf(const Arrived& a) { return 7 + Count(a.block_hashes); }
int64_t BodyOf(const BlocksHashed& b) { return 3 + Count(b.block_hashes); }
int64_t BodyOf(const Aborted&) { return 2; }
int64_t BodyOf(const Heartbeat&) { return 6; }
int64_t BodyOf(const Aggregate&) { return 4; }
int64_t BodyOf(const BatchTrace& t) {
  return 17 + Structs(t.chunks, 3) + Structs(t.admitted, 2) + Structs(t.finished, 2) + Count(t.preempted) + Count(t.cancelled) +
         Count(t.skipped);
}

int64_t ExactOf(const Snapshot::Exact& e) {
  int64_t words =
      7 + Structs(e.requests, 8) + Words(4 * Count(e.free_list)) + Structs(e.hashed_blocks, 2) + Structs(e.in_flight, 5);
  for (const auto& r : e.requests) words += Words(4 * Count(r.blocks)) + Count(r.prompt_hashes);
  for (const auto& f : e.in_flight) words += Count(f.requests) + Words(4 * Count(f.tokens)) + Words(Count(f.samples));
  return words;
}
int64_t BodyOf(const Snapshot& s) {
  return 8 + Structs(s.running, 3) + Structs(s.waiting, 3) + (s.exact ? ExactOf(*s.exact) : 0);
}

}  // namespace

int64_t WireBytesOf(const StreamMessage& message) {
  const int64_t body = std::visit([](const auto& b) { return BodyOf(b); }, message.body);
  return 8 * (kEnvelope + body);
}

}  // namespace foretoken
