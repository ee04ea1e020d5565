// SglangRadixCache: SGLang's prefix cache at page size 1: a radix tree over token sequences whose edges hold any number of tokens.
// Guarantees: a token's KV is held once however many prompts share it; what a lock protects (a node and everything above it) is
// never evicted; eviction takes whole leaves, least recently used first, and a parent becomes a leaf in turn.
// It counts tokens and holds no KV; the owner accounts for the pool (SglangCore). Node handles stay valid while locked.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "runtime/base/result.h"

namespace foretoken {

// Tokens (content, from) .. (content, from + length - 1); equal tokens have equal content and offset (PromptSegment).
struct TokenRun {
  uint64_t content = 0;
  int64_t from = 0;
  int64_t length = 0;
  bool operator==(const TokenRun&) const = default;
};

// A token sequence; neighbouring runs that continue one another are one run.
class TokenRuns {
 public:
  void Append(TokenRun run);
  TokenRuns Slice(int64_t from, int64_t to) const;  // 0 <= from <= to <= length()
  int64_t length() const { return length_; }
  const TokenRun& front() const { return runs_.front(); }
  // How many tokens two sequences have in common at their start.
  static int64_t CommonPrefix(const TokenRuns& a, const TokenRuns& b);

 private:
  std::vector<TokenRun> runs_;
  int64_t length_ = 0;
};

class SglangRadixCache {
 public:
  using Node = uint32_t;
  static constexpr Node kRoot = 0;
  struct Match {
    int64_t tokens = 0;  // of the key, from its start
    Node node = kRoot;   // where they end
  };

  SglangRadixCache();

  // The longest cached prefix; counts as a use of everything on its path. Splits an edge that it ends within.
  Match MatchPrefix(const TokenRuns& key);
  // Makes the whole key cached and used. Returns how many of its tokens were cached before.
  int64_t Insert(const TokenRuns& key);
  void Lock(Node node);
  void Unlock(Node node);
  // Evicts unlocked leaves until at least `tokens` are gone or none is left; returns how many went.
  int64_t Evict(int64_t tokens);

  int64_t tokens() const { return evictable_ + locked_; }
  int64_t evictable() const {
    return evictable_;
  }  // all of it can be had by Evict: what is below a lock-free node is lock-free
  Status CheckInvariants() const;

 private:
  using Token = std::pair<uint64_t, int64_t>;
  struct Entry {
    Node parent = kRoot;
    TokenRuns edge;                  // from the parent to here
    std::map<Token, Node> children;  // by the first token of their edges
    int64_t locks = 0;
    uint64_t used = 0;  // logical time of the last use
    bool alive = false;
  };

  Node NewNode(Node parent, TokenRuns edge);
  // Follows `key` as far as it is cached; the edge on which it ends is split there.
  Match Descend(const TokenRuns& key);
  Node Split(Node child, int64_t at);
  void Touch(Node node);
  bool IsEvictableLeaf(Node node) const;
  // Called around every change of what IsEvictableLeaf or the order of eviction depends on.
  void Unlist(Node node) { leaves_.erase({entries_[node].used, node}); }
  void Relist(Node node) {
    if (IsEvictableLeaf(node)) leaves_.insert({entries_[node].used, node});
  }

  std::vector<Entry> entries_;  // kRoot first
  std::vector<Node> unused_;
  std::set<std::pair<uint64_t, Node>> leaves_;  // evictable ones, least recently used first
  int64_t evictable_ = 0;
  int64_t locked_ = 0;
  uint64_t clock_ = 0;
};

}  // namespace foretoken
