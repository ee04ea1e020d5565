// TlsContext: the certificates of a node, read once, for all its connections. Mutual: both sides must show a certificate of the cluster's
// authority; TLS 1.3 and nothing older. TlsSession: one connection. Who is at the other end is checked by subject name (SAN): the dialler
// checks the node that it meant to reach, the listener the name in the peer's NodeHello (PeerIs).
#pragma once

#include <openssl/ossl_typ.h>

#include <cstddef>
#include <memory>
#include <string>

#include "runtime/base/result.h"

namespace foretoken {

struct TlsFiles {
  std::string certificate, key, ca;  // PEM
};

class TlsSession {
 public:
  enum class Io : uint8_t { kDone, kWantRead, kWantWrite, kFailed };

  ~TlsSession();
  // Goes on with the handshake; kDone: it is complete.
  Io Handshake();
  Io Read(void* out, size_t length, size_t& done);
  Io Write(const void* in, size_t length, size_t& done);
  bool pending() const;  // it holds bytes that have not been read yet, of a whole record or not
  bool ready() const { return ready_; }
  // Whether the peer's certificate was issued to `name`.
  bool PeerIs(const std::string& name) const;

 private:
  friend class TlsContext;
  explicit TlsSession(SSL* ssl) : ssl_(ssl) {}
  Io IoOf(int result) const;

  SSL* ssl_;
  bool ready_ = false;
};

class TlsContext {
 public:
  // Error: names the file and OpenSSL's complaint.
  static Result<std::shared_ptr<const TlsContext>> Load(const TlsFiles& files);
  ~TlsContext();

  // For a connected or connecting non-blocking socket, which stays the caller's. Null: out of memory.
  std::shared_ptr<TlsSession> Accept(int fd) const;
  std::shared_ptr<TlsSession> Connect(int fd, const std::string& peer) const;

 private:
  TlsContext(SSL_CTX* server, SSL_CTX* client) : server_(server), client_(client) {}

  SSL_CTX* server_;
  SSL_CTX* client_;
};

}  // namespace foretoken
