/**
 * A proxy in front of PostgreSQL that lets a chosen statement fail, or the statements that are sent
 * together (joined.ts). The server itself raises the error, in their place and in their
 * transaction, so everything after it is the server's own behaviour.
 */
import { createServer, connect as dial, type Socket } from "node:net";
import { onTestFinished } from "vitest";

export type StatementProxy = {
  url: string;
  /** The statements since the last call, by their order. */
  take(): string[];
  /**
   * Lets the `at`-th statement from now on fail, from 0. `isLasting`: and every later statement of
   * the same text, until {@link mend}.
   */
  fail(at: number, code: string, options?: { isLasting?: boolean }): void;
  /**
   * Returns the text that failed; empty for none. Work in parallel may change the order of texts.
   */
  mend(): string;
};

type Fault = { at: number; code: string; isLasting: boolean; text?: string | undefined };

/** Messages of a client that end a statement: a query, and a sync. */
const ends = new Set(["Q", "S"]);

export async function startStatementProxy(databaseUrl: string): Promise<StatementProxy> {
  const target = new URL(databaseUrl);
  const sockets = new Set<Socket>();
  let seen: string[] = [];
  let fault: Fault | undefined;

  /** The code to raise in the statement's place; undefined: the statement passes. */
  function judge(text: string): string | undefined {
    const at = seen.push(text) - 1;
    if (!fault) return undefined;
    if (fault.at === at) fault.text = text;
    return fault.at === at || (fault.isLasting && fault.text === text) ? fault.code : undefined;
  }

  const server = createServer((client) => {
    const upstream = dial({ host: target.hostname, port: Number(target.port) });
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => {
        sockets.delete(socket);
        client.destroy();
        upstream.destroy();
      });
    }
    upstream.pipe(client);
    const cut = new Statements();
    client.on("data", (bytes: Buffer) => {
      for (const { text, frames } of cut.push(bytes)) {
        const code = text === undefined ? undefined : judge(text);
        upstream.write(code === undefined ? frames : raising(code));
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(async () => {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  });
  const url = new URL(databaseUrl);
  url.host = `127.0.0.1:${(server.address() as { port: number }).port}`;
  return {
    url: url.href,
    take() {
      const taken = seen;
      seen = [];
      fault = undefined;
      return taken;
    },
    fail(at, code, { isLasting = false } = {}) {
      seen = [];
      fault = { at, code, isLasting };
    },
    mend() {
      const text = fault?.text ?? "";
      fault = undefined;
      return text;
    },
  };
}

/** A simple query that fails with the code. */
function raising(code: string): Buffer {
  const text = `do $$ begin raise exception using errcode = '${code}', message = 'injected'; end $$`;
  const body = Buffer.from(`${text}\0`);
  const head = Buffer.alloc(5);
  head.write("Q");
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
}

/** Cuts a client's bytes into statements; `text` is undefined for the messages of the start. */
class Statements {
  #bytes = Buffer.alloc(0);
  #isStarted = false;
  #frames: Buffer[] = [];
  #text = "";
  /** The texts of prepared statements by name. */
  readonly #prepared = new Map<string, string>();

  push(bytes: Buffer): { text: string | undefined; frames: Buffer }[] {
    this.#bytes = Buffer.concat([this.#bytes, bytes]);
    const found: { text: string | undefined; frames: Buffer }[] = [];
    for (let frame = this.#next(); frame; frame = this.#next()) {
      const kind = String.fromCharCode(frame[0]!);
      if (!this.#isStarted || kind === "p" || kind === "X") {
        found.push({ text: undefined, frames: frame });
        this.#isStarted = true;
        continue;
      }
      this.#note(kind, frame);
      this.#frames.push(frame);
      if (!ends.has(kind)) continue;
      found.push({ text: this.#text, frames: Buffer.concat(this.#frames) });
      this.#frames = [];
      this.#text = "";
    }
    return found;
  }

  #note(kind: string, frame: Buffer): void {
    const texts = frame.subarray(5).toString("utf8").split("\0");
    if (kind === "Q") this.#text += texts[0] ?? "";
    if (kind === "P") this.#prepared.set(texts[0] ?? "", texts[1] ?? "");
    if (kind === "B") this.#text += `${this.#prepared.get(texts[1] ?? "") ?? ""};`;
  }

  /** The next whole message; the first has no kind. */
  #next(): Buffer | undefined {
    const start = this.#isStarted ? 1 : 0;
    if (this.#bytes.length < start + 4) return undefined;
    const length = start + this.#bytes.readInt32BE(start);
    if (this.#bytes.length < length) return undefined;
    const frame = this.#bytes.subarray(0, length);
    this.#bytes = this.#bytes.subarray(length);
    return frame;
  }
}
