/**
 * A new key for a request. `crypto.randomUUID` is missing on pages without TLS, except on
 * localhost.
 */
export function newKey(): string {
  return crypto.getRandomValues(new Uint32Array(4)).join("-");
}
