#include "integration/eval/inputs_digest.h"

#include <openssl/sha.h>

#include <filesystem>
#include <set>
#include <system_error>

#include "configs/config_tree.h"

namespace foretoken {
namespace {

// The file, or those in the folder.
void AddFilesOf(const std::string& path, std::set<std::string>& files) {
  std::error_code error;
  if (!std::filesystem::is_directory(path, error)) {
    files.insert(path);
    return;
  }
  for (const auto& entry : std::filesystem::directory_iterator(path, error))
    if (entry.is_regular_file(error)) files.insert(entry.path().string());
}

}  // namespace

Result<std::string> InputsDigest(const Grid& grid) {
  std::string all = grid.name + '\n' + std::to_string(grid.limit) + ' ' + std::to_string(grid.warmup_share) + ' ' +
                    std::to_string(grid.drain_share) + ' ' + std::to_string(grid.truth_sample) +
                    (grid.by_load ? " loads" : " rate scales") + (grid.stand_in ? " stand-ins\n" : "\n");
  std::set<std::string> files;
  for (const GridCell& cell : grid.cells) {
    all += grid.KeyOf(cell);
    for (const std::string& s : cell.set) all += ' ' + s;
    all += '\n';
    if (cell.measured) {
      for (const std::string& path : {cell.measured->run, cell.measured->table}) AddFilesOf(path, files);
      continue;
    }
    files.insert({cell.topology, cell.workload});
    if (!cell.faults.empty()) files.insert(cell.faults);
  }
  for (const std::string& file : files) {
    const Result<std::string> text = ReadConfigFile(file);
    if (!text.ok()) return text.error();
    all += *text + '\0';
  }
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(all.data()), all.size(), digest);
  std::string hex;
  for (const unsigned char byte : digest) {
    constexpr char kDigits[] = "0123456789abcdef";
    hex += kDigits[byte >> 4];
    hex += kDigits[byte & 15];
  }
  return hex;
}

}  // namespace foretoken
