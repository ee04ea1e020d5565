#include "integration/simulate/decision_log.h"

#include <openssl/evp.h>

#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>

#include "configs/topology.h"

namespace foretoken {
namespace {

template <class T>
void AppendNumber(T value, std::string& out) {
  char text[32];
  const auto end = std::to_chars(text, text + sizeof text, value);
  out.append(text, end.ptr);
}

}  // namespace

struct DecisionLog::Digest {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~Digest() { EVP_MD_CTX_free(context); }
};

void AppendDecisionLine(const DecisionRecord& r, const std::vector<std::string>& names, std::string& out) {
  out += "{\"t_ns\":";
  AppendNumber(r.at.nanos(), out);
  out += ",\"request\":";
  AppendNumber(r.request.value(), out);
  out += ",\"instance\":\"";
  out += names[r.instance.value()];
  out += "\",\"policy\":\"";
  out += r.policy;
  out += "\",\"predictor\":\"";
  out += NameOf(r.predictor);
  out += "\",\"state_version\":";
  AppendNumber(r.state_version, out);
  out += ",\"score\":";
  if (std::isfinite(r.score)) {
    AppendNumber(r.score, out);
  } else {
    out += "null";
  }
  out += "}\n";
}

Result<std::unique_ptr<DecisionLog>> DecisionLog::Open(const std::string& path, std::vector<std::string> names) {
  std::unique_ptr<DecisionLog> log(new DecisionLog);
  log->path_ = path;
  log->names_ = std::move(names);
  log->digest_ = std::make_unique<Digest>();
  EVP_DigestInit_ex(log->digest_->context, EVP_sha256(), nullptr);
  if (!path.empty()) {
    log->file_ = std::fopen(path.c_str(), "wb");
    if (log->file_ == nullptr) return Error{path + ": cannot write the decision log: " + std::strerror(errno)};
  }
  return log;
}

DecisionLog::~DecisionLog() {
  if (file_ != nullptr) std::fclose(file_);
}

void DecisionLog::Add(const DecisionRecord& record) {
  constexpr size_t kFlushBytes = 1 << 16;
  AppendDecisionLine(record, names_, buffer_);
  if (buffer_.size() >= kFlushBytes) Flush();
}

void DecisionLog::Flush() {
  EVP_DigestUpdate(digest_->context, buffer_.data(), buffer_.size());
  if (file_ != nullptr && std::fwrite(buffer_.data(), 1, buffer_.size(), file_) != buffer_.size()) failed_ = true;
  buffer_.clear();
}

Result<std::string> DecisionLog::Close() {
  Flush();
  if (file_ != nullptr) {
    failed_ |= std::fclose(file_) != 0;
    file_ = nullptr;
  }
  if (failed_) return Error{path_ + ": the decision log could not be written to its end (is the disk full?)"};
  unsigned char bytes[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  EVP_DigestFinal_ex(digest_->context, bytes, &size);
  std::string hex;
  for (unsigned int i = 0; i < size; ++i) {
    constexpr char kDigits[] = "0123456789abcdef";
    hex += kDigits[bytes[i] >> 4];
    hex += kDigits[bytes[i] & 15];
  }
  return hex;
}

}  // namespace foretoken
