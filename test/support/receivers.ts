/**
 * Receivers of Pinion's deliveries: HTTP servers and a mail server on localhost, with answers
 * chosen by the test.
 */
import { createServer, type IncomingHttpHeaders, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { type ParsedMail, simpleParser } from "mailparser";
import { SMTPServer } from "smtp-server";
import { onTestFinished } from "vitest";

export type Received = { path: string; headers: IncomingHttpHeaders; body: string };

/** The answer to a request: a status, or a function that writes the answer. */
export type Behaviour = number | ((answer: ServerResponse, request: Received) => void);

export type Receiver = {
  url: string;
  received: Received[];
  /** Sets the answers to the next requests, in order; the last answer repeats. */
  behave(...behaviours: Behaviour[]): void;
  close(): Promise<void>;
};

/**
 * An HTTP receiver that accepts every request unless `behave` says otherwise. Closed after the
 * test.
 */
export async function openReceiver(port = 0): Promise<Receiver> {
  const received: Received[] = [];
  let behaviours: Behaviour[] = [200];
  const server = createServer((request, answer) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const one = {
        path: request.url ?? "",
        headers: request.headers,
        body: Buffer.concat(chunks).toString("utf8"),
      };
      received.push(one);
      const behaviour = behaviours.length > 1 ? behaviours.shift()! : behaviours[0]!;
      if (typeof behaviour === "function") return behaviour(answer, one);
      answer.writeHead(behaviour).end(behaviour === 200 ? "ok" : "no");
    });
  });
  await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
  const close = () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });
  onTestFinished(close);
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    received,
    behave: (...wanted) => {
      behaviours = wanted;
    },
    close,
  };
}

/**
 * A mail server that accepts every mail except those matched by `refuse`. Closed after the test.
 */
export async function openMailServer(
  options: { refuse?: () => string | undefined; password?: string } = {},
): Promise<{ url: string; mails: ParsedMail[] }> {
  const mails: ParsedMail[] = [];
  const server = new SMTPServer({
    authOptional: options.password === undefined,
    disabledCommands: ["STARTTLS"],
    allowInsecureAuth: true,
    onAuth(auth, _session, done) {
      if (auth.password === options.password) done(null, { user: auth.username ?? "" });
      else done(new Error("wrong password"));
    },
    onRcptTo(_address, _session, done) {
      const refusal = options.refuse?.();
      if (refusal === undefined) return done();
      done(Object.assign(new Error(refusal), { responseCode: 550 }));
    },
    onData(stream, _session, done) {
      simpleParser(stream).then(
        (mail) => {
          mails.push(mail);
          done();
        },
        (error: Error) => done(error),
      );
    },
  });
  server.on("error", () => {});
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => new Promise<void>((resolve) => server.close(() => resolve())));
  return { url: `smtp://127.0.0.1:${(server.server.address() as AddressInfo).port}`, mails };
}
