// CellLog: the finished cells of a grid as JSON Lines, written as they finish, so that an interrupted evaluation goes on where it
// was. The first line names what was evaluated by a digest of its files; a line cut short by the interruption is left out.
#pragma once

#include <boost/json.hpp>
#include <fstream>
#include <map>
#include <string>

#include "runtime/base/result.h"

namespace foretoken {

class CellLog {
 public:
  // Opens `path` for writing. With `resume`, rows of an earlier run over the same inputs are kept. Error: cannot be written, or
  // holds other inputs' rows.
  Status Open(const std::string& path, const std::string& inputs_digest, bool resume);
  // By key; those that were kept and those added.
  const std::map<std::string, boost::json::object>& rows() const { return rows_; }
  // Error: the disk is full or the like.
  Status Add(boost::json::object row);

 private:
  Status Keep(const std::string& inputs_digest);

  std::string path_;
  std::ofstream out_;
  std::map<std::string, boost::json::object> rows_;
};

}  // namespace foretoken
