import type { ClientHttp2Session, ClientHttp2Stream } from "node:http2";
import { Http2SessionManager } from "@connectrpc/connect-node";

/**
 * HTTP/2 connections for a transport of connect-node. Node's client sends an IPv6 literal without
 * brackets as the authority, an invalid form; this class adds the brackets.
 */
export class Sessions extends Http2SessionManager {
  override async request(...[method, path, headers, options]: Parameters<Http2SessionManager["request"]>) {
    const { hostname, host } = new URL(this.authority);
    const named = hostname.startsWith("[") ? { ...headers, ":authority": host } : headers;
    const stream = await super.request(method, path, named, options);
    readEarly(stream);
    hearErrors(stream.session);
    return stream;
  }
}

const heard = new WeakSet<ClientHttp2Session>();

/**
 * Listens to the connection's errors for its whole life. connect-node stops listening when the
 * connection has failed or is closed, and a peer that speaks no HTTP/2 makes an error after that,
 * which without a listener ends the process. The failed calls tell the error.
 */
function hearErrors(session: ClientHttp2Stream["session"]): void {
  const connection = session as ClientHttp2Session | undefined;
  if (connection === undefined || heard.has(connection)) return;
  heard.add(connection);
  connection.on("error", () => {});
}

/**
 * Begins the one iteration of the stream now, and hands it out later. In Node 24.20 and above an
 * iteration that begins after the stream has closed throws ERR_STREAM_PREMATURE_CLOSE, although the
 * whole answer waits in the stream (nodejs/node#65677). connect-node begins only after the headers,
 * which a proxy may send together with the end.
 */
function readEarly(stream: ClientHttp2Stream): void {
  const rest = stream[Symbol.asyncIterator]();
  const first = rest.next();
  // An answer that nobody reads, because the call failed in another way.
  first.catch(() => {});
  stream[Symbol.asyncIterator] = () => chunksOf(first, rest);
}

async function* chunksOf<Chunk>(
  first: Promise<IteratorResult<Chunk>>,
  rest: AsyncIterator<Chunk>,
): AsyncGenerator<Chunk, undefined> {
  try {
    for (let next = await first; !next.done; next = await rest.next()) yield next.value;
  } finally {
    await rest.return?.();
  }
}
