/** An HTTP proxy with CONNECT, like those between offices and the internet. */
import { createServer, type IncomingMessage, type Server } from "node:http";
import { createServer as createSecureServer } from "node:https";
import { type AddressInfo, connect, createServer as createTcpServer, type Socket } from "node:net";
import { onTestFinished } from "vitest";

export type ConnectProxyOptions = {
  /** Requires these credentials, as Basic authentication. */
  credentials?: { name: string; password: string };
  /** Answers every CONNECT with this status instead. */
  status?: number;
  /** The scheme of Proxy-Authenticate, sent with 407. */
  scheme?: string;
  /** Accepts connections and never answers. */
  isDeaf?: boolean;
  /** Serves TLS itself. */
  tls?: { cert: string; key: string };
};

export type ConnectProxy = {
  port: number;
  /** "127.0.0.1:port". */
  address: string;
  /** The targets of all admitted CONNECTs, in order: "host:port". */
  readonly passed: string[];
  /** The targets of all refused CONNECTs. */
  readonly refused: string[];
};

/**
 * Every name leads to this machine: the proxy looks names up itself, and so a test may invent
 * names.
 */
export async function startConnectProxy(options: ConnectProxyOptions = {}): Promise<ConnectProxy> {
  const [passed, refused]: [string[], string[]] = [[], []];
  const sockets = new Set<Socket>();
  const server: Server = options.tls ? createSecureServer(options.tls) : createServer();
  const keep = (socket: Socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.once("close", () => sockets.delete(socket));
  };
  server.on("connection", keep);
  server.on("secureConnection", keep);
  server.on("connect", (request: IncomingMessage, client: Socket, head: Buffer) => {
    const target = request.url ?? "";
    if (options.isDeaf) return;
    const status = statusOf(request, options);
    if (status !== 200) {
      refused.push(target);
      const asks = status === 407 ? `Proxy-Authenticate: ${options.scheme ?? 'Basic realm="test"'}\r\n` : "";
      client.end(`HTTP/1.1 ${status} No\r\n${asks}Content-Length: 0\r\n\r\n`);
      return;
    }
    const upstream = connect({ host: "127.0.0.1", port: Number(/:(\d+)$/.exec(target)?.[1]) });
    keep(upstream);
    upstream.once("error", () => client.end("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"));
    upstream.once("connect", () => {
      passed.push(target);
      client.write("HTTP/1.1 200 Connection established\r\n\r\n");
      if (head.length > 0) upstream.write(head);
      upstream.pipe(client).pipe(upstream);
      upstream.once("close", () => client.destroy());
      client.once("close", () => upstream.destroy());
    });
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return { port, address: `127.0.0.1:${port}`, passed, refused };
}

function statusOf(request: IncomingMessage, { credentials, status }: ConnectProxyOptions): number {
  if (status !== undefined) return status;
  if (credentials === undefined) return 200;
  const wanted = Buffer.from(`${credentials.name}:${credentials.password}`).toString("base64");
  return request.headers["proxy-authorization"] === `Basic ${wanted}` ? 200 : 407;
}

/**
 * A SOCKS5 proxy without authentication, or with a name and a password (RFC 1928, 1929). Names lead
 * to this machine, as above.
 */
export async function startSocksProxy(credentials?: {
  name: string;
  password: string;
}): Promise<ConnectProxy> {
  const [passed, refused]: [string[], string[]] = [[], []];
  const sockets = new Set<Socket>();
  const server = createTcpServer((client) => {
    sockets.add(client);
    client.on("error", () => {});
    let step: "greeting" | "password" | "request" | "open" = "greeting";
    client.on("data", (data: Buffer) => {
      if (step === "greeting") {
        step = credentials ? "password" : "request";
        client.write(Buffer.from([5, credentials ? 2 : 0]));
      } else if (step === "password") {
        const name = data.toString("utf8", 2, 2 + data[1]!);
        const password = data.toString("utf8", 3 + data[1]!);
        const isGood = name === credentials?.name && password === credentials.password;
        if (!isGood) refused.push(name);
        step = "request";
        client.write(Buffer.from([1, isGood ? 0 : 1]));
      } else if (step === "request") {
        step = "open";
        // Tests only use names and IPv4 addresses.
        const length = data[3] === 3 ? data[4]! + 1 : 4;
        const host =
          data[3] === 3 ? data.toString("utf8", 5, 4 + length) : [...data.subarray(4, 8)].join(".");
        const port = data.readUInt16BE(4 + length);
        const upstream = connect({ host: "127.0.0.1", port });
        sockets.add(upstream);
        upstream.on("error", () => client.destroy());
        upstream.once("connect", () => {
          passed.push(`${host}:${port}`);
          client.write(Buffer.from([5, 0, 0, 1, 0, 0, 0, 0, 0, 0]));
          upstream.pipe(client).pipe(upstream);
        });
        client.once("close", () => upstream.destroy());
      }
    });
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return { port, address: `127.0.0.1:${port}`, passed, refused };
}
