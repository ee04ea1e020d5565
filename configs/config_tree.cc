#include "configs/config_tree.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>
#include <optional>
#include <sstream>
#include <tuple>

namespace foretoken {
namespace {

constexpr size_t kTextMax = 1 << 20;
constexpr int kDepthMax = 32;          // a topology needs 6
constexpr size_t kNodesMax = 100'000;  // 2,000 instances written out one by one need 20,000
constexpr size_t kShownMax = 60;

Position At(const YAML::Mark& mark, const Position& origin) {
  if (origin.override_index >= 0 || mark.is_null()) return origin;
  return {-1, mark.line + 1, mark.column + 1};
}

std::string Child(const std::string& path, const std::string& key) { return path.empty() ? key : path + "." + key; }

// Copies yaml-cpp's graph (aliases make it one) into a tree.
class Converter {
 public:
  Converter(ConfigErrorSink& sink, Position origin) : sink_(sink), origin_(origin) {}

  ConfigNode Convert(const YAML::Node& node, const std::string& path, int depth) {
    ConfigNode out;
    out.at = At(node.Mark(), origin_);
    if (++nodes_ > kNodesMax || depth > kDepthMax) {
      if (!full_)
        sink_.Add(out.at, path,
                  (path.empty() ? "" : path + ": ") + std::string("nested too deeply or too large (aliases count each time)"));
      full_ = true;
      return out;
    }
    switch (node.Type()) {
      case YAML::NodeType::Undefined:
      case YAML::NodeType::Null: break;
      case YAML::NodeType::Scalar:
        out.kind = ConfigNode::Kind::kScalar;
        out.scalar = node.Scalar();
        out.quoted = node.Tag() == "!";
        break;
      case YAML::NodeType::Sequence: List(node, path, depth, out); break;
      case YAML::NodeType::Map: Map(node, path, depth, out); break;
    }
    return out;
  }

 private:
  void List(const YAML::Node& node, const std::string& path, int depth, ConfigNode& out) {
    out.kind = ConfigNode::Kind::kList;
    for (const YAML::Node& item : node) {
      out.items.push_back(Convert(item, path + "[" + std::to_string(out.items.size()) + "]", depth + 1));
      if (full_) return;
    }
  }

  void Map(const YAML::Node& node, const std::string& path, int depth, ConfigNode& out) {
    out.kind = ConfigNode::Kind::kMap;
    for (const auto& entry : node) {
      const Position key_at = At(entry.first.Mark(), origin_);
      if (!entry.first.IsScalar()) {
        sink_.Add(key_at, path, (path.empty() ? "" : path + ": ") + std::string("a key must be a plain word"));
        continue;
      }
      const std::string key = entry.first.Scalar();
      const auto known = std::find(out.keys.begin(), out.keys.end(), key);
      if (known != out.keys.end()) {
        const Position& first = out.keys_at[static_cast<size_t>(known - out.keys.begin())];
        sink_.Add(key_at, Child(path, key),
                  Child(path, key) + ": given twice (first in line " + std::to_string(first.line) + ")");
        continue;
      }
      ConfigNode value = Convert(entry.second, Child(path, key), depth + 1);
      if (full_) return;
      out.keys.push_back(key);
      out.keys_at.push_back(key_at);
      out.items.push_back(std::move(value));
    }
  }

  ConfigErrorSink& sink_;
  Position origin_;
  size_t nodes_ = 0;
  bool full_ = false;
};

// Notes where a document starts and drops the rest.
class DocumentMark final : public YAML::EventHandler {
 public:
  void OnDocumentStart(const YAML::Mark& mark) override { start = mark; }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t, const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
  void OnMapEnd() override {}

  YAML::Mark start;
};

// Where something follows the first document. Not YAML::LoadAll: on a stray '}' it makes empty documents for ever.
std::optional<YAML::Mark> SecondDocument(const std::string& text) {
  std::istringstream in(text);
  YAML::Parser parser(in);
  DocumentMark document;
  if (!parser.HandleNextDocument(document) || !parser.HandleNextDocument(document)) return std::nullopt;
  return document.start;
}

// One document; what is wrong goes to the sink.
std::optional<ConfigNode> Parse(const std::string& text, const Position& origin, const std::string& prefix,
                                const std::string& path, ConfigErrorSink& sink) {
  try {
    if (const std::optional<YAML::Mark> second = SecondDocument(text); second) {
      sink.Add(At(*second, origin), path, prefix + "something follows the end of the YAML document; one document is allowed");
      return std::nullopt;
    }
    const size_t before = sink.size();
    ConfigNode node = Converter(sink, origin).Convert(YAML::Load(text), path, 0);
    if (sink.size() != before && node.kind == ConfigNode::Kind::kNull) return std::nullopt;
    return node;
  } catch (const YAML::Exception& e) {
    sink.Add(At(e.mark, origin), path, prefix + "not valid YAML: " + e.msg);
  } catch (const std::exception& e) {
    sink.Add(origin, path, prefix + "not valid YAML: " + e.what());
  }
  return std::nullopt;
}

// The child of a map or list that the front of `rest` names; advances `rest` past it and its separator.
class PathWalker {
 public:
  PathWalker(std::string_view path, Position at) : rest_(path), at_(at) {}

  // The node that the whole path names, made if it is a new key of a map; nullptr with `problem` set when there is no such
  // place.
  ConfigNode* Walk(ConfigNode& root, std::string& problem) {
    ConfigNode* node = &root;
    while (!rest_.empty()) {
      const bool bracket = rest_.front() == '[';
      if (!bracket && !walked_.empty()) {
        if (rest_.front() != '.') return Fail(problem, "expected '.' or '[' at \"" + std::string(rest_) + "\"");
        rest_.remove_prefix(1);
      }
      if (node->kind == ConfigNode::Kind::kNull) node->kind = ConfigNode::Kind::kMap;
      if (node->kind == ConfigNode::Kind::kScalar)
        return Fail(problem, (walked_.empty() ? "the file" : walked_) + " has no keys below it");
      const std::string name = bracket ? Bracketed(problem) : Word(*node);
      if (!problem.empty()) return nullptr;
      if (name.empty()) return Fail(problem, "an empty name in the path");
      node = node->kind == ConfigNode::Kind::kList ? Element(*node, name, problem) : Value(*node, name);
      if (node == nullptr) return nullptr;
    }
    return node;
  }
  const std::string& walked() const { return walked_; }

 private:
  ConfigNode* Fail(std::string& problem, const std::string& text) {
    problem = text;
    return nullptr;
  }

  std::string Bracketed(std::string& problem) {
    const size_t end = rest_.find(']');
    if (end == std::string_view::npos) {
      problem = "'[' without ']'";
      return "";
    }
    const std::string name(rest_.substr(1, end - 1));
    rest_.remove_prefix(end + 1);
    return name;
  }

  // Keys may hold dots ("qwen2.5-7b"): the longest key of the map that fits wins.
  std::string Word(const ConfigNode& node) {
    size_t length = std::min(rest_.find_first_of(".["), rest_.size());
    for (const std::string& key : node.keys) {
      if (rest_.substr(0, key.size()) != key || key.size() <= length) continue;
      if (rest_.size() == key.size() || rest_[key.size()] == '.' || rest_[key.size()] == '[') length = key.size();
    }
    const std::string name(rest_.substr(0, length));
    rest_.remove_prefix(length);
    return name;
  }

  ConfigNode* Value(ConfigNode& map, const std::string& name) {
    walked_ = Child(walked_, name);
    for (size_t i = 0; i < map.keys.size(); ++i)
      if (map.keys[i] == name) return &map.items[i];
    map.keys.push_back(name);
    map.keys_at.push_back(at_);
    map.items.push_back(ConfigNode{.at = at_});
    return &map.items.back();
  }

  ConfigNode* Element(ConfigNode& list, const std::string& name, std::string& problem) {
    size_t index = list.items.size();
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), index);
    if (error != std::errc() || end != name.data() + name.size()) index = IndexOf(list, name);
    if (index >= list.items.size()) {
      const std::string count = std::to_string(list.items.size());
      return Fail(problem, walked_ + "[" + name + "]: no such element (there are " + count + ", named by index, id or name)");
    }
    walked_ += "[" + std::to_string(index) + "]";
    return &list.items[index];
  }

  static size_t IndexOf(const ConfigNode& list, std::string_view name) {
    for (size_t i = 0; i < list.items.size(); ++i) {
      for (const char* key : {"id", "name"}) {
        const ConfigNode* value = list.items[i].Find(key);
        if (value != nullptr && value->kind == ConfigNode::Kind::kScalar && value->scalar == name) return i;
      }
    }
    return list.items.size();
  }

  std::string_view rest_;
  Position at_;
  std::string walked_;
};

void ApplyOverride(ConfigNode& root, int index, ConfigErrorSink& sink) {
  const std::string text = sink.overrides()[static_cast<size_t>(index)];
  const Position at{index, 1, 1};
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    sink.Add(at, "", "must be path=value, such as scheduler.policy=lmetric");
    return;
  }
  PathWalker walker(std::string_view(text).substr(0, equals), at);
  const std::optional<ConfigNode> value = Parse(text.substr(equals + 1), at, "the value is ", text.substr(0, equals), sink);
  if (!value) return;
  std::string problem;
  ConfigNode* place = walker.Walk(root, problem);
  if (place == nullptr) {
    sink.Add(at, walker.walked(), problem);
    return;
  }
  *place = *value;
}

}  // namespace

const ConfigNode* ConfigNode::Find(std::string_view key) const {
  for (size_t i = 0; i < keys.size(); ++i)
    if (keys[i] == key) return &items[i];
  return nullptr;
}

std::string ConfigNode::Shown() const {
  if (kind == Kind::kMap) return "{...}";
  if (kind == Kind::kList) return "[...]";
  if (kind == Kind::kNull) return "(nothing)";
  std::string shown;
  for (const char c : scalar.substr(0, kShownMax)) shown += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  if (scalar.size() > kShownMax) shown += "...";
  return quoted ? "\"" + shown + "\"" : shown;
}

std::string ConfigNode::ToFlow() const {
  const bool map = kind == Kind::kMap;
  if (kind == Kind::kNull) return "~";
  if (kind == Kind::kScalar) {
    const bool plain = !quoted && scalar.find_first_of(",[]{}#&*!|>'\"%@`\n\r\t\\") == std::string::npos &&
                       scalar.find(": ") == std::string::npos;
    if (plain) return scalar;
    std::string text = "\"";
    for (const char c : scalar) {
      if (c == '"' || c == '\\') text += '\\';
      text += c == '\n' ? std::string("\\n") : std::string(1, c);
    }
    return text + "\"";
  }
  std::string text = map ? "{" : "[";
  for (size_t i = 0; i < items.size(); ++i)
    text += (i == 0 ? " " : ", ") + (map ? keys[i] + ": " : std::string()) + items[i].ToFlow();
  return text + (map ? " }" : " ]");
}

void ConfigErrorSink::Add(const Position& at, std::string path, std::string message) {
  std::string where = file_name_ + ":" + std::to_string(at.line) + ":" + std::to_string(at.column);
  if (at.override_index >= 0) where = "--set " + overrides_[static_cast<size_t>(at.override_index)];
  entries_.push_back({at, {std::move(where), std::move(path), std::move(message)}});
}

void ConfigErrorSink::Add(const ConfigNode& node, const std::string& path, const std::string& rule) {
  Add(node.at, path, path + " = " + node.Shown() + ": " + rule);
}

ConfigErrors ConfigErrorSink::Take() {
  std::stable_sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.at.override_index, a.at.line, a.at.column) < std::tie(b.at.override_index, b.at.line, b.at.column);
  });
  ConfigErrors out;
  for (Entry& e : entries_) out.errors.push_back(std::move(e.error));
  entries_.clear();
  return out;
}

ConfigNode ReadConfigTree(std::string_view text, ConfigErrorSink& sink) {
  ConfigNode root;
  root.kind = ConfigNode::Kind::kMap;
  if (text.size() > kTextMax) {
    sink.Add(Position{}, "", "larger than 1 MiB; that is no configuration");
    return root;
  }
  std::optional<ConfigNode> parsed = Parse(std::string(text), Position{}, "", "", sink);
  if (!parsed) return root;
  if (parsed->kind != ConfigNode::Kind::kMap) {
    sink.Add(parsed->at, "", parsed->kind == ConfigNode::Kind::kNull ? "empty; expected keys" : "must be a map of keys");
    return root;
  }
  for (size_t i = 0; i < sink.overrides().size(); ++i) ApplyOverride(*parsed, static_cast<int>(i), sink);
  return *std::move(parsed);
}

Result<std::string> ReadConfigFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return Error{"no such file"};
  std::string text;
  text.resize(kTextMax + 1);
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (in.bad() || (in.fail() && !in.eof())) return Error{"cannot be read as a file"};
  text.resize(static_cast<size_t>(in.gcount()));
  if (text.size() > kTextMax) return Error{"larger than 1 MiB; that is no configuration"};
  return text;
}

}  // namespace foretoken
