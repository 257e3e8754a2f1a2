/** Whether a host, a name or an address, which a URL has in brackets, is this machine itself. */
export function isLoopback(host: string): boolean {
  return /^(localhost|127\.\d+\.\d+\.\d+|::1|\[::1\])$/.test(host);
}
