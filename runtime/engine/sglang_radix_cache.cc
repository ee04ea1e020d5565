#include "runtime/engine/sglang_radix_cache.h"

#include <algorithm>

#include "runtime/base/check.h"

namespace foretoken {

void TokenRuns::Append(TokenRun run) {
  if (run.length == 0) return;
  length_ += run.length;
  if (!runs_.empty() && runs_.back().content == run.content && runs_.back().from + runs_.back().length == run.from) {
    runs_.back().length += run.length;
  } else {
    runs_.push_back(run);
  }
}

TokenRuns TokenRuns::Slice(int64_t from, int64_t to) const {
  TokenRuns out;
  for (const TokenRun& run : runs_) {
    const int64_t begin = std::max<int64_t>(from, 0);
    const int64_t end = std::min(to, run.length);
    if (begin < end) out.Append({run.content, run.from + begin, end - begin});
    from -= run.length;
    to -= run.length;
    if (to <= 0) break;
  }
  return out;
}

int64_t TokenRuns::CommonPrefix(const TokenRuns& a, const TokenRuns& b) {
  size_t i = 0, j = 0;
  int64_t a_from = 0, b_from = 0, common = 0;
  while (i < a.runs_.size() && j < b.runs_.size()) {
    const TokenRun& x = a.runs_[i];
    const TokenRun& y = b.runs_[j];
    if (x.content != y.content || x.from + a_from != y.from + b_from) break;
    const int64_t n = std::min(x.length - a_from, y.length - b_from);
    common += n;
    a_from += n;
    b_from += n;
    if (a_from == x.length) a_from = 0, ++i;
    if (b_from == y.length) b_from = 0, ++j;
  }
  return common;
}

SglangRadixCache::SglangRadixCache() {
  entries_.emplace_back();
  entries_[kRoot].alive = true;
  entries_[kRoot].locks = 1;  // never a leaf to evict
}

SglangRadixCache::Node SglangRadixCache::NewNode(Node parent, TokenRuns edge) {
  Node node;
  if (unused_.empty()) {
    node = static_cast<Node>(entries_.size());
    entries_.emplace_back();
  } else {
    node = unused_.back();
    unused_.pop_back();
  }
  Entry& e = entries_[node];
  e = Entry{};
  e.parent = parent;
  e.edge = std::move(edge);
  e.used = clock_;
  e.alive = true;
  return node;
}

bool SglangRadixCache::IsEvictableLeaf(Node node) const {
  const Entry& e = entries_[node];
  return node != kRoot && e.locks == 0 && e.children.empty();
}

void SglangRadixCache::Touch(Node node) {
  Unlist(node);
  entries_[node].used = clock_;
  Relist(node);
}

SglangRadixCache::Node SglangRadixCache::Split(Node child, int64_t at) {
  const TokenRuns edge = entries_[child].edge;
  const Node parent = entries_[child].parent;
  const Node upper = NewNode(parent, edge.Slice(0, at));  // may move entries_
  Unlist(child);
  Entry& low = entries_[child];
  Entry& high = entries_[upper];
  high.locks = low.locks;
  low.edge = edge.Slice(at, edge.length());
  low.parent = upper;
  high.children[{low.edge.front().content, low.edge.front().from}] = child;
  entries_[parent].children[{edge.front().content, edge.front().from}] = upper;
  Relist(child);
  return upper;
}

SglangRadixCache::Match SglangRadixCache::Descend(const TokenRuns& key) {
  ++clock_;
  Match match;
  TokenRuns rest = key;
  while (rest.length() > 0) {
    const auto& children = entries_[match.node].children;
    const auto child = children.find({rest.front().content, rest.front().from});
    if (child == children.end()) break;
    Node next = child->second;
    const int64_t common = TokenRuns::CommonPrefix(rest, entries_[next].edge);
    if (common < entries_[next].edge.length()) next = Split(next, common);
    Touch(next);
    match.tokens += common;
    match.node = next;
    rest = rest.Slice(common, rest.length());
  }
  return match;
}

SglangRadixCache::Match SglangRadixCache::MatchPrefix(const TokenRuns& key) { return Descend(key); }

int64_t SglangRadixCache::Insert(const TokenRuns& key) {
  const Match match = Descend(key);
  if (match.tokens == key.length()) return match.tokens;
  TokenRuns rest = key.Slice(match.tokens, key.length());
  const TokenRun first = rest.front();
  evictable_ += rest.length();
  const Node leaf = NewNode(match.node, std::move(rest));
  Unlist(match.node);
  entries_[match.node].children[{first.content, first.from}] = leaf;
  Relist(leaf);
  return match.tokens;
}

void SglangRadixCache::Lock(Node node) {
  for (; node != kRoot; node = entries_[node].parent) {
    Unlist(node);
    Entry& e = entries_[node];
    if (e.locks++ > 0) continue;
    evictable_ -= e.edge.length();
    locked_ += e.edge.length();
  }
}

void SglangRadixCache::Unlock(Node node) {
  for (; node != kRoot; node = entries_[node].parent) {
    Entry& e = entries_[node];
    FT_CHECK(e.alive && e.locks > 0);
    if (--e.locks > 0) continue;
    evictable_ += e.edge.length();
    locked_ -= e.edge.length();
    Relist(node);
  }
}

int64_t SglangRadixCache::Evict(int64_t tokens) {
  int64_t gone = 0;
  while (gone < tokens && !leaves_.empty()) {
    const Node leaf = leaves_.begin()->second;
    leaves_.erase(leaves_.begin());
    Entry& e = entries_[leaf];
    const Node parent = e.parent;
    entries_[parent].children.erase({e.edge.front().content, e.edge.front().from});
    gone += e.edge.length();
    evictable_ -= e.edge.length();
    e = Entry{};
    unused_.push_back(leaf);
    Relist(parent);
  }
  return gone;
}

Status SglangRadixCache::CheckInvariants() const {
  int64_t evictable = 0, locked = 0;
  size_t leaves = 0;
  for (Node n = 1; n < entries_.size(); ++n) {
    const Entry& e = entries_[n];
    if (!e.alive) continue;
    (e.locks == 0 ? evictable : locked) += e.edge.length();
    if (e.edge.length() < 1) return Error{"radix cache: an edge without tokens"};
    const Entry& parent = entries_[e.parent];
    if (!parent.alive || (e.parent != kRoot && parent.locks < e.locks))
      return Error{"radix cache: a node is locked more often than its parent"};
    const auto here = parent.children.find({e.edge.front().content, e.edge.front().from});
    if (here == parent.children.end() || here->second != n) return Error{"radix cache: a node its parent does not know"};
    if (IsEvictableLeaf(n) != (leaves_.count({e.used, n}) == 1)) return Error{"radix cache: the list of leaves is wrong"};
    leaves += IsEvictableLeaf(n);
  }
  if (leaves != leaves_.size()) return Error{"radix cache: a listed leaf does not exist"};
  if (evictable != evictable_ || locked != locked_) return Error{"radix cache: token counts do not add up"};
  return {};
}

}  // namespace foretoken
