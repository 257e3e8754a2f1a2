/** Mail by SMTP: the agent's text as sanitized HTML, and its Markdown as the text part. */
import { connect, type Socket } from "node:net";
import { marked } from "marked";
import { createTransport, type Transporter } from "nodemailer";
import type SMTPTransport from "nodemailer/lib/smtp-transport/index.js";
import sanitize from "sanitize-html";
import type { Reach } from "../../network/addresses.ts";
import { credentialsOf } from "../../network/credentials.ts";
import type { Sent } from "../../scheduler/deliverer.ts";
import { excerpt } from "../../values/excerpt.ts";
import { troubleOf } from "./answer.ts";
import { formatted } from "./formatted.ts";
import type { Message } from "./message.ts";

/** Maximum milliseconds of one step of the SMTP dialogue. */
const stepMs = 10_000;

export type Mailbox = {
  url: string;
  from: string;
  to: readonly string[];
  /** Undefined: the operator chose the server, and any address is allowed. */
  reach: Reach | undefined;
};

export async function sendEmail(
  message: Message,
  { mailbox, signal }: { mailbox: Mailbox; signal: AbortSignal },
): Promise<Sent> {
  let transport: Transporter<SMTPTransport.SentMessageInfo> | undefined;
  let socket: Socket | undefined;
  try {
    transport = createTransport(optionsOf(mailbox, (opened) => (socket = opened)));
    const sending = transport.sendMail({
      from: { name: "Pinion", address: mailbox.from },
      to: [...mailbox.to],
      subject: message.title,
      // The same for every try, so that a mailbox may recognize a second copy.
      messageId: `<${message.id}@${mailbox.from.split("@").at(-1)}>`,
      headers: { "auto-submitted": "auto-generated", "x-pinion-kind": message.kind },
      text: textOf(message),
      html: htmlOf(message),
      disableFileAccess: true,
      disableUrlAccess: true,
    });
    const aborted = new Promise<never>((_, reject) => {
      const abort = () => reject(signal.reason);
      if (signal.aborted) abort();
      signal.addEventListener("abort", abort, { once: true });
    });
    sending.catch(() => {});
    // Some of the addresses may be refused; with all of them refused, the promise rejects.
    await Promise.race([sending, aborted]);
    return { outcome: "delivered", status: 250 };
  } catch (error) {
    return mailTroubleOf(error);
  } finally {
    transport?.close();
    socket?.destroy();
  }
}

/**
 * A server's 5xx about the message or its addresses is final; a refused login may be corrected by a
 * setting.
 */
function mailTroubleOf(error: unknown): Sent {
  const {
    responseCode = 0,
    code,
    response,
  } = error as { responseCode?: number; code?: string; response?: string };
  const said = excerpt(response ?? "", 300);
  if (responseCode >= 500 && code !== "EAUTH") {
    return { outcome: "refused", status: responseCode, error: `the mail server refused it: ${said}` };
  }
  if (responseCode > 0) {
    const what = code === "EAUTH" ? "the mail server did not let us in" : "the mail server said";
    return { outcome: "failed", status: responseCode, error: `${what}: ${said}` };
  }
  return troubleOf(error);
}

function optionsOf({ url, reach }: Mailbox, onSocket: (socket: Socket) => void): SMTPTransport.Options {
  const parsed = new URL(url);
  const { protocol, hostname, port } = parsed;
  const credentials = credentialsOf(parsed);
  const isSecure = protocol === "smtps:";
  const host = hostname.replace(/^\[|\]$/g, "");
  const target = { host, port: Number(port) || (isSecure ? 465 : 587) };
  return {
    ...target,
    secure: isSecure,
    ...(credentials ? { auth: { user: credentials.name, pass: credentials.password } } : {}),
    connectionTimeout: stepMs,
    greetingTimeout: stepMs,
    socketTimeout: stepMs,
    // The address check and the dial use the same lookup.
    getSocket(_options, made) {
      const opened = reach ? reach.requireHost(host) : Promise.resolve();
      opened.then(() => {
        const socket = connect({ ...target, ...(reach ? { lookup: reach.lookup } : {}) });
        onSocket(socket);
        socket.setTimeout(stepMs, () => socket.destroy(new Error("the mail server did not answer in time")));
        socket.once("error", made);
        socket.once("connect", () => {
          socket.removeListener("error", made);
          socket.setTimeout(0);
          made(null, { connection: socket });
        });
      }, made);
    },
  };
}

/** Pure. */
export function textOf({ title, body, url }: Message): string {
  return [title, body, url ? `Open in Pinion: ${url}` : ""].filter(Boolean).join("\n\n");
}

export function htmlOf({ title, body, url }: Message): string {
  const html = formatted(body, { format: cleanHtml, plain: (text) => `<pre>${escapedHtml(text)}</pre>` });
  const link = url ? `<p><a href="${escapedHtml(url)}">Open in Pinion</a></p>` : "";
  return `<!doctype html><html><head><meta charset="utf-8"><title>${escapedHtml(title)}</title></head><body><h2>${escapedHtml(title)}</h2>${html}${link}</body></html>`;
}

/** Pure. Nothing in an agent's text loads or runs: no pictures, styles, scripts or forms. */
function cleanHtml(markdown: string): string {
  return sanitize(marked.parse(markdown, { async: false, gfm: true }), {
    allowedTags: [
      ...["h1", "h2", "h3", "h4", "h5", "h6", "p", "br", "hr", "blockquote", "ul", "ol", "li", "pre", "code"],
      ...["strong", "em", "del", "a", "table", "thead", "tbody", "tr", "th", "td"],
    ],
    allowedAttributes: { a: ["href"] },
    allowedSchemes: ["http", "https", "mailto"],
    disallowedTagsMode: "escape",
  });
}

const escapedHtml = (text: string) =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
