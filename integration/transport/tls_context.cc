#include "integration/transport/tls_context.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <csignal>
#include <utility>

namespace foretoken {
namespace {

std::string LastError() {
  char text[256] = "no reason given";
  if (const unsigned long code = ERR_get_error(); code != 0) ERR_error_string_n(code, text, sizeof text);
  ERR_clear_error();
  return text;
}

Result<SSL_CTX*> MakeContext(const SSL_METHOD* method, const TlsFiles& files) {
  SSL_CTX* ctx = SSL_CTX_new(method);
  if (ctx == nullptr) return Error{"TLS: " + LastError()};
  const auto fail = [ctx](const std::string& file) {
    const Error e{"TLS: " + file + ": " + LastError()};
    SSL_CTX_free(ctx);
    return e;
  };
  SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION);
  SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_read_ahead(ctx, 1);  // a record's head and body in one system call
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(ctx, 0);  // connections last: nothing is resumed
  if (SSL_CTX_use_certificate_chain_file(ctx, files.certificate.c_str()) != 1) return fail(files.certificate);
  if (SSL_CTX_use_PrivateKey_file(ctx, files.key.c_str(), SSL_FILETYPE_PEM) != 1) return fail(files.key);
  if (SSL_CTX_check_private_key(ctx) != 1) return fail(files.key + " does not belong to " + files.certificate);
  if (SSL_CTX_load_verify_locations(ctx, files.ca.c_str(), nullptr) != 1) return fail(files.ca);
  return ctx;
}

}  // namespace

TlsSession::~TlsSession() { SSL_free(ssl_); }

TlsSession::Io TlsSession::IoOf(int result) const {
  switch (SSL_get_error(ssl_, result)) {
    case SSL_ERROR_WANT_READ: return Io::kWantRead;
    case SSL_ERROR_WANT_WRITE: return Io::kWantWrite;
    default: ERR_clear_error(); return Io::kFailed;
  }
}

TlsSession::Io TlsSession::Handshake() {
  if (ready_) return Io::kDone;
  ERR_clear_error();
  const int result = SSL_do_handshake(ssl_);
  if (result != 1) return IoOf(result);
  ready_ = true;
  return Io::kDone;
}

TlsSession::Io TlsSession::Read(void* out, size_t length, size_t& done) {
  done = 0;
  ERR_clear_error();
  const int result = SSL_read_ex(ssl_, out, length, &done);
  return result == 1 ? Io::kDone : IoOf(result);
}

TlsSession::Io TlsSession::Write(const void* in, size_t length, size_t& done) {
  done = 0;
  ERR_clear_error();
  const int result = SSL_write_ex(ssl_, in, length, &done);
  return result == 1 ? Io::kDone : IoOf(result);
}

bool TlsSession::pending() const { return SSL_has_pending(ssl_) == 1; }

bool TlsSession::PeerIs(const std::string& name) const {
  X509* certificate = SSL_get1_peer_certificate(ssl_);
  if (certificate == nullptr) return false;
  const bool is = X509_check_host(certificate, name.data(), name.size(), 0, nullptr) == 1;
  X509_free(certificate);
  return is;
}

Result<std::shared_ptr<const TlsContext>> TlsContext::Load(const TlsFiles& files) {
  // OpenSSL writes to sockets with write(2): without this, a peer that is gone would end the process instead of the connection.
  std::signal(SIGPIPE, SIG_IGN);
  auto server = MakeContext(TLS_server_method(), files);
  if (!server.ok()) return server.error();
  auto client = MakeContext(TLS_client_method(), files);
  if (!client.ok()) {
    SSL_CTX_free(*server);
    return client.error();
  }
  return std::shared_ptr<const TlsContext>(new TlsContext(*server, *client));
}

TlsContext::~TlsContext() {
  SSL_CTX_free(server_);
  SSL_CTX_free(client_);
}

std::shared_ptr<TlsSession> TlsContext::Accept(int fd) const {
  SSL* ssl = SSL_new(server_);
  if (ssl == nullptr || SSL_set_fd(ssl, fd) != 1) {
    SSL_free(ssl);
    return nullptr;
  }
  SSL_set_accept_state(ssl);
  return std::shared_ptr<TlsSession>(new TlsSession(ssl));
}

std::shared_ptr<TlsSession> TlsContext::Connect(int fd, const std::string& peer) const {
  SSL* ssl = SSL_new(client_);
  if (ssl == nullptr || SSL_set_fd(ssl, fd) != 1 || SSL_set1_host(ssl, peer.c_str()) != 1) {
    SSL_free(ssl);
    return nullptr;
  }
  SSL_set_connect_state(ssl);
  return std::shared_ptr<TlsSession>(new TlsSession(ssl));
}

}  // namespace foretoken
