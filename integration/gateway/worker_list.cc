#include "integration/gateway/worker_list.h"

#include <set>
#include <sstream>

#include "integration/gateway/engine_url.h"

namespace foretoken {

Result<std::vector<std::string>> ReadWorkerList(const std::string& text, const std::string& path) {
  std::vector<std::string> urls;
  std::set<std::string> seen;
  std::istringstream lines(text);
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    line = line.substr(0, line.find('#'));
    const size_t first = line.find_first_not_of(" \t\r");
    if (first == std::string::npos) continue;
    line = line.substr(first, line.find_last_not_of(" \t\r") + 1 - first);
    const auto wrong = [&](const std::string& what) { return Error{path + ":" + std::to_string(number) + ": " + what}; };
    const auto url = EngineUrl::Parse(line);
    if (!url.ok()) return wrong(url.error().message);
    if (!seen.insert(url->name()).second) return wrong("worker " + url->name() + " is named twice");
    urls.push_back(line);
  }
  if (urls.empty()) return Error{path + ": names no worker: one URL a line, such as http://127.0.0.1:8000"};
  return urls;
}

}  // namespace foretoken
