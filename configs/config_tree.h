// A YAML text as a tree that knows where each node stands, with --set overrides applied. Bounded: text, depth and nodes have
// caps, so that no input (alias bombs, endless nesting) takes the program down. Says nothing about what keys mean.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "configs/config_error.h"
#include "runtime/base/result.h"

namespace foretoken {

struct Position {
  int override_index = -1;  // which --set; -1: the file
  int line = 1;             // of the file, from 1
  int column = 1;
};

struct ConfigNode {
  enum class Kind : uint8_t { kNull, kScalar, kList, kMap };
  Kind kind = Kind::kNull;
  std::string scalar = {};
  bool quoted = false;  // "5" in quotes is text, never a number
  Position at = {};
  std::vector<ConfigNode> items = {};  // of a list or a map
  std::vector<std::string> keys = {};  // of a map: keys[i] names items[i]
  std::vector<Position> keys_at = {};

  const ConfigNode* Find(std::string_view key) const;
  // As text for a message: a scalar as written (shortened), "{...}" or "[...]".
  std::string Shown() const;
  // The whole value on one line, such that reading it gives the node again: what --set takes.
  std::string ToFlow() const;
};

// Collects mistakes; knows how to say where a position is.
class ConfigErrorSink {
 public:
  ConfigErrorSink(std::string_view file_name, std::vector<std::string> overrides)
      : file_name_(file_name), overrides_(std::move(overrides)) {}

  void Add(const Position& at, std::string path, std::string message);
  // "path = value: rule".
  void Add(const ConfigNode& node, const std::string& path, const std::string& rule);
  bool empty() const { return entries_.empty(); }
  size_t size() const { return entries_.size(); }
  // In the order of the file, those of overrides last.
  ConfigErrors Take();

  const std::vector<std::string>& overrides() const { return overrides_; }

 private:
  struct Entry {
    Position at = {};
    ConfigError error;
  };
  std::string file_name_;
  std::vector<std::string> overrides_;
  std::vector<Entry> entries_;
};

// The tree of `text` with the sink's overrides applied. On an error in the text the tree is an empty map and the sink is not
// empty.
ConfigNode ReadConfigTree(std::string_view text, ConfigErrorSink& sink);

// Reads a file of at most 1 MiB. Error: a message without a position.
Result<std::string> ReadConfigFile(const std::string& path);

}  // namespace foretoken
