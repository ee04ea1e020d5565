// What a test takes from its environment: how many random cases to run, from which seeds, and where data outside the
// repository lies. `./foretoken test` sets the variables (tools/run_tests.py); without them a test runs its defaults.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace foretoken::testing {

inline std::optional<uint64_t> NumberFromEnvironment(const char* variable) {
  const char* text = std::getenv(variable);
  if (text == nullptr || *text == '\0') return std::nullopt;
  return std::strtoull(text, nullptr, 0);
}

// The seeds of a random test: FORETOKEN_SEED alone if set (to repeat a failure); else 1..N with N = FORETOKEN_SEEDS or
// `normal`, and FORETOKEN_EXTRA_SEED (in CI, from the commit's hash). Print the seed with each failure (SCOPED_TRACE).
inline std::vector<uint64_t> Seeds(uint64_t normal) {
  if (const auto only = NumberFromEnvironment("FORETOKEN_SEED")) return {*only};
  std::vector<uint64_t> seeds;
  const uint64_t count = NumberFromEnvironment("FORETOKEN_SEEDS").value_or(normal);
  for (uint64_t seed = 1; seed <= count; ++seed) seeds.push_back(seed);
  if (const auto extra = NumberFromEnvironment("FORETOKEN_EXTRA_SEED")) seeds.push_back(*extra);
  return seeds;
}

// Cases of a property or differential test: FORETOKEN_CASES or `normal`.
inline uint64_t Cases(uint64_t normal) { return NumberFromEnvironment("FORETOKEN_CASES").value_or(normal); }

// A file or folder of the shared data by its path below ../shared; absent if there is none on this machine:
//   const auto trace = SharedPath("data/traces/x.csv");
//   if (!trace) GTEST_SKIP() << "needs ../shared/data/traces/x.csv (FORETOKEN_SHARED)";
inline std::optional<std::string> SharedPath(const std::string& below) {
  const char* shared = std::getenv("FORETOKEN_SHARED");
  if (shared == nullptr) return std::nullopt;
  std::string path = std::string(shared) + "/" + below;
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return std::nullopt;
  return path;
}

}  // namespace foretoken::testing
