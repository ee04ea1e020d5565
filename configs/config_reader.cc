#include "configs/config_reader.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "runtime/base/nearest_name.h"

namespace foretoken {
namespace {

const ConfigNode kEmptyMap = [] {
  ConfigNode node;
  node.kind = ConfigNode::Kind::kMap;
  return node;
}();

std::string Shown(double v) {
  if (std::abs(v) < 1e15 && v == std::floor(v)) return std::to_string(static_cast<int64_t>(v));
  char text[32];
  const auto r = std::to_chars(text, text + sizeof text, v);
  return std::string(text, r.ptr);
}

std::string Shown(Duration d) {
  const int64_t ns = d.nanos();
  if (ns % 1'000'000'000 == 0) return std::to_string(ns / 1'000'000'000) + "s";
  if (ns % 1'000'000 == 0) return std::to_string(ns / 1'000'000) + "ms";
  if (ns % 1'000 == 0) return std::to_string(ns / 1'000) + "us";
  return std::to_string(ns) + "ns";
}

bool IsPlain(const ConfigNode& node) { return node.kind == ConfigNode::Kind::kScalar && !node.quoted; }

// A number in front of a unit: "1.5ms" -> 1.5, "ms". Only digits, one dot, a leading minus.
struct Quantity {
  double number = 0;
  std::string_view unit;
};

std::optional<Quantity> SplitQuantity(std::string_view text) {
  const size_t end = std::min(text.find_first_not_of("-0123456789."), text.size());
  if (end == 0) return std::nullopt;
  Quantity q;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + end, q.number, std::chars_format::fixed);
  if (error != std::errc() || stop != text.data() + end) return std::nullopt;
  q.unit = text.substr(end);
  while (!q.unit.empty() && q.unit.front() == ' ') q.unit.remove_prefix(1);
  return q;
}

constexpr char kDurationExample[] = "a duration with a unit, such as 50ms, 1s or 5us";

using Units = std::span<const std::pair<std::string_view, double>>;

constexpr std::pair<std::string_view, double> kTimeUnits[] = {{"ns", 1},  {"us", 1e3}, {"ms", 1e6},
                                                              {"s", 1e9}, {"m", 60e9}, {"h", 3600e9}};
constexpr std::pair<std::string_view, double> kByteUnits[] = {
    {"B", 1}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"KiB", 1024.0}, {"MiB", 1024.0 * 1024}, {"GiB", 1024.0 * 1024 * 1024}};

// The value in the smallest unit; reports what is wrong. `example`: such as kDurationExample.
std::optional<double> ReadQuantity(const ConfigNode& node, const std::string& path, Units units, const std::string& example,
                                   ConfigErrorSink& sink) {
  const std::optional<Quantity> q = IsPlain(node) ? SplitQuantity(node.scalar) : std::nullopt;
  if (!q || q->unit.empty()) {
    sink.Add(node, path, "must be " + example);
    return std::nullopt;
  }
  std::vector<std::string_view> names;
  for (const auto& [name, factor] : units) {
    if (name == q->unit) return q->number * factor;
    names.push_back(name);
  }
  sink.Add(node, path, "unknown unit \"" + std::string(q->unit) + "\"; must be " + example + DidYouMean(q->unit, names));
  return std::nullopt;
}

}  // namespace

std::string DidYouMean(std::string_view name, const std::vector<std::string_view>& names) {
  return names.empty() ? "" : " (did you mean \"" + NearestName(name, names) + "\"?)";
}

std::optional<int64_t> ReadInt(const ConfigNode& node, const std::string& path, IntRange range, ConfigErrorSink& sink) {
  int64_t v = 0;
  const char* end = node.scalar.data() + node.scalar.size();
  const auto [stop, error] = std::from_chars(node.scalar.data(), end, v);
  if (!IsPlain(node) || node.scalar.empty() || error != std::errc() || stop != end) {
    sink.Add(node, path, "must be a whole number");
    return std::nullopt;
  }
  if (v >= range.min && v <= range.max) return v;
  const std::string min = std::to_string(range.min);
  const bool above = range.max == std::numeric_limits<int64_t>::max();
  if (range.min == range.max) {
    sink.Add(node, path, "must be " + min);
    return std::nullopt;
  }
  sink.Add(node, path, above ? "must be >= " + min : "must be between " + min + " and " + std::to_string(range.max));
  return std::nullopt;
}

std::optional<double> ReadReal(const ConfigNode& node, const std::string& path, RealRange range, ConfigErrorSink& sink) {
  double v = 0;
  const char* end = node.scalar.data() + node.scalar.size();
  const auto [stop, error] = std::from_chars(node.scalar.data(), end, v);
  if (!IsPlain(node) || node.scalar.empty() || error != std::errc() || stop != end || !std::isfinite(v)) {
    sink.Add(node, path, "must be a number");
    return std::nullopt;
  }
  if ((range.min_excluded ? v > range.min : v >= range.min) && v <= range.max) return v;
  const std::string min = (range.min_excluded ? "> " : ">= ") + Shown(range.min);
  const bool above = range.max == std::numeric_limits<double>::max();
  sink.Add(node, path, "must be " + min + (above ? "" : " and <= " + Shown(range.max)));
  return std::nullopt;
}

std::optional<bool> ReadBool(const ConfigNode& node, const std::string& path, ConfigErrorSink& sink) {
  if (IsPlain(node) && node.scalar == "true") return true;
  if (IsPlain(node) && node.scalar == "false") return false;
  sink.Add(node, path, "must be true or false");
  return std::nullopt;
}

std::optional<std::string> ReadText(const ConfigNode& node, const std::string& path, ConfigErrorSink& sink) {
  if (node.kind == ConfigNode::Kind::kScalar && !node.scalar.empty()) return node.scalar;
  sink.Add(node, path, "must be a text");
  return std::nullopt;
}

std::optional<Duration> ReadDuration(const ConfigNode& node, const std::string& path, DurationRange range,
                                     ConfigErrorSink& sink) {
  const std::optional<double> ns = ReadQuantity(node, path, kTimeUnits, kDurationExample, sink);
  if (!ns) return std::nullopt;
  if (*ns >= static_cast<double>(range.min.nanos()) && *ns <= static_cast<double>(range.max.nanos()))
    return Duration::FromNanos(*ns);
  const bool above = range.max == DurationRange{}.max && *ns < static_cast<double>(range.min.nanos());
  sink.Add(node, path,
           above ? "must be >= " + Shown(range.min) : "must be between " + Shown(range.min) + " and " + Shown(range.max));
  return std::nullopt;
}

std::optional<double> ReadNanos(const ConfigNode& node, const std::string& path, Duration min, ConfigErrorSink& sink) {
  const std::optional<double> ns = ReadQuantity(node, path, kTimeUnits, kDurationExample, sink);
  if (!ns) return std::nullopt;
  if (*ns >= static_cast<double>(min.nanos()) && *ns <= static_cast<double>(DurationRange{}.max.nanos())) return ns;
  sink.Add(node, path, "must be >= " + Shown(min));
  return std::nullopt;
}

std::optional<int64_t> ReadBytes(const ConfigNode& node, const std::string& path, IntRange range, ConfigErrorSink& sink) {
  const std::optional<double> bytes = ReadQuantity(node, path, kByteUnits, "a size with a unit, such as 64MiB or 500kB", sink);
  if (!bytes) return std::nullopt;
  if (*bytes >= static_cast<double>(range.min) && *bytes <= static_cast<double>(range.max)) return static_cast<int64_t>(*bytes);
  sink.Add(node, path, "must be between " + std::to_string(range.min) + "B and " + std::to_string(range.max) + "B");
  return std::nullopt;
}

std::optional<size_t> ReadName(const ConfigNode& node, const std::string& path, const std::vector<std::string_view>& names,
                               ConfigErrorSink& sink) {
  const auto found = std::find(names.begin(), names.end(), node.scalar);
  if (node.kind == ConfigNode::Kind::kScalar && found != names.end()) return static_cast<size_t>(found - names.begin());
  std::string list;
  for (const std::string_view name : names) list += (list.empty() ? "" : ", ") + std::string(name);
  sink.Add(node, path, "must be one of " + list + (node.scalar.empty() ? "" : DidYouMean(node.scalar, names)));
  return std::nullopt;
}

ConfigMap::ConfigMap(const ConfigNode& node, std::string path, ConfigErrorSink& sink)
    : node_(&node), path_(std::move(path)), sink_(&sink) {
  if (node.kind == ConfigNode::Kind::kMap) return;
  sink.Add(node, path_, "must be a map of keys");
  node_ = &kEmptyMap;
}

std::string ConfigMap::PathOf(std::string_view key) const {
  return path_.empty() ? std::string(key) : path_ + "." + std::string(key);
}

const ConfigNode* ConfigMap::Find(std::string_view key) {
  if (std::find(known_.begin(), known_.end(), key) == known_.end()) known_.emplace_back(key);
  const ConfigNode* value = node_->Find(key);
  if (value == nullptr || value->kind != ConfigNode::Kind::kNull) return value;
  sink_->Add(value->at, PathOf(key), PathOf(key) + ": has no value; give one or remove the key");
  return nullptr;
}

const ConfigNode* ConfigMap::Require(std::string_view key) {
  if (!Has(key) && node_ != &kEmptyMap) sink_->Add(node_->at, PathOf(key), PathOf(key) + ": is missing");
  return Find(key);
}

void ConfigMap::Refuse(std::string_view key, const std::string& reason) {
  const ConfigNode* value = Find(key);
  if (value != nullptr) sink_->Add(*value, PathOf(key), reason);
}

void ConfigMap::Fault(std::string_view key, const std::string& rule) {
  const ConfigNode* value = node_->Find(key);
  if (value != nullptr) {
    sink_->Add(*value, PathOf(key), rule);
  } else {
    sink_->Add(node_->at, PathOf(key), PathOf(key) + ": " + rule);
  }
}

bool ConfigMap::Real(std::string_view key, RealRange range, double& out) {
  const ConfigNode* n = Find(key);
  const std::optional<double> v = n == nullptr ? std::nullopt : ReadReal(*n, PathOf(key), range, *sink_);
  if (v) out = *v;
  return v.has_value();
}

bool ConfigMap::Bool(std::string_view key, bool& out) {
  const ConfigNode* n = Find(key);
  const std::optional<bool> v = n == nullptr ? std::nullopt : ReadBool(*n, PathOf(key), *sink_);
  if (v) out = *v;
  return v.has_value();
}

bool ConfigMap::Text(std::string_view key, std::string& out) {
  const ConfigNode* n = Find(key);
  std::optional<std::string> v;
  if (n != nullptr) v = ReadText(*n, PathOf(key), *sink_);
  if (v) out = *std::move(v);
  return v.has_value();
}

bool ConfigMap::Time(std::string_view key, DurationRange range, Duration& out) {
  const ConfigNode* n = Find(key);
  const std::optional<Duration> v = n == nullptr ? std::nullopt : ReadDuration(*n, PathOf(key), range, *sink_);
  if (v) out = *v;
  return v.has_value();
}

bool ConfigMap::Bytes(std::string_view key, IntRange range, int64_t& out) {
  const ConfigNode* n = Find(key);
  const std::optional<int64_t> v = n == nullptr ? std::nullopt : ReadBytes(*n, PathOf(key), range, *sink_);
  if (v) out = *v;
  return v.has_value();
}

void ConfigMap::Finish() {
  const std::vector<std::string_view> names(known_.begin(), known_.end());
  for (size_t i = 0; i < node_->keys.size(); ++i) {
    const std::string& key = node_->keys[i];
    if (std::find(known_.begin(), known_.end(), key) != known_.end()) continue;
    sink_->Add(node_->keys_at[i], PathOf(key),
               PathOf(key) + " = " + node_->items[i].Shown() + ": unknown key" + DidYouMean(key, names));
  }
}

std::vector<ConfigItem> ReadList(ConfigMap& map, std::string_view key) {
  std::vector<ConfigItem> items;
  const ConfigNode* list = map.Find(key);
  if (list == nullptr) return items;
  if (list->kind != ConfigNode::Kind::kList) {
    map.sink().Add(*list, map.PathOf(key), "must be a list");
    return items;
  }
  for (size_t i = 0; i < list->items.size(); ++i)
    items.push_back({&list->items[i], map.PathOf(key) + "[" + std::to_string(i) + "]"});
  return items;
}

std::vector<std::string> ReadTexts(ConfigMap& map, std::string_view key) {
  std::vector<std::string> texts;
  const ConfigNode* value = map.Find(key);
  if (value == nullptr) return texts;
  std::vector<ConfigItem> items;
  if (value->kind == ConfigNode::Kind::kScalar) {
    items.push_back({value, map.PathOf(key)});
  } else {
    items = ReadList(map, key);
  }
  for (const ConfigItem& item : items) {
    const std::optional<std::string> text = ReadText(*item.node, item.path, map.sink());
    if (text) texts.push_back(*text);
  }
  return texts;
}

}  // namespace foretoken
