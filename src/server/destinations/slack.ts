/**
 * Slack: an incoming webhook, or chat.postMessage of a bot; blocks of mrkdwn, and a text for
 * notifications.
 */
import { slackifyMarkdown } from "slackify-markdown";
import type { Reach } from "../../network/addresses.ts";
import { post } from "../../network/outgoing.ts";
import type { Sent } from "../../scheduler/deliverer.ts";
import { excerpt } from "../../values/excerpt.ts";
import { sentOf, troubleOf } from "./answer.ts";
import { formatted } from "./formatted.ts";
import type { Message } from "./message.ts";

/**
 * A section holds 3,000 characters, some of them for escapes; Slack folds a message after a few
 * sections.
 */
const sectionMax = 2_800;
const sectionsMax = 4;
/** Maximum characters of a section's text as sent. */
const textMax = 2_990;

export type SlackAccess = { webhookUrl: string } | { botToken: string; channel: string; apiUrl: string };

export async function sendSlack(
  message: Message,
  options: { access: SlackAccess; reach: Reach; signal: AbortSignal },
): Promise<Sent> {
  const { access } = options;
  const isBot = "botToken" in access;
  const url = isBot ? `${access.apiUrl.replace(/\/+$/, "")}/chat.postMessage` : access.webhookUrl;
  try {
    const answer = await post(new URL(url), {
      headers: {
        "content-type": "application/json; charset=utf-8",
        ...(isBot ? { authorization: `Bearer ${access.botToken}` } : {}),
      },
      body: JSON.stringify({ ...(isBot ? { channel: access.channel } : {}), ...slackMessage(message) }),
      reach: options.reach,
      signal: options.signal,
      // The request carries a secret, so redirects are not followed.
      redirectsMax: 0,
    });
    const sent = sentOf(answer);
    return sent.outcome === "delivered" && isBot ? botAnswer(answer.text, answer.status) : sent;
  } catch (error) {
    return troubleOf(error);
  }
}

/** Slack's API answers 200 also for refusals. */
function botAnswer(text: string, status: number): Sent {
  let said: { ok?: unknown; error?: unknown };
  try {
    said = JSON.parse(text) as typeof said;
  } catch {
    return { outcome: "failed", status, error: "answered something that is no JSON" };
  }
  if (said.ok === true) return { outcome: "delivered", status };
  const error = excerpt(String(said.error ?? "no reason"), 200);
  return { outcome: "failed", status, error: `Slack refused it: ${error}` };
}

/** Pure. */
export function slackMessage({ title, body, url }: Message): Record<string, unknown> {
  const heading = { type: "header", text: { type: "plain_text", text: excerpt(title, 145), emoji: false } };
  const texts = formatted(body, {
    format: (text) => pieces(text).map(mrkdwn),
    plain: (text) => pieces(text).map((piece) => excerpt(escaped(piece), textMax)),
  });
  const sections = texts.map((text) => ({ type: "section", text: { type: "mrkdwn", text } }));
  const link = url
    ? [{ type: "context", elements: [{ type: "mrkdwn", text: `<${escaped(url)}|Open in Pinion>` }] }]
    : [];
  return { text: escaped(title), blocks: [heading, ...sections, ...link], unfurl_links: false };
}

/**
 * Converts Markdown to Slack's format. An agent's text notifies nobody: of Slack's marks in angle
 * brackets only links are kept (`<!channel>` would notify the whole channel).
 */
function mrkdwn(markdown: string): string {
  const text = slackifyMarkdown(markdown)
    .trim()
    .replace(/<(?!(?:https?:\/\/|mailto:)[^<>|\s]+(?:\|[^<>\n]*)?>)/g, "&lt;");
  return text === "" ? " " : excerpt(text, textMax);
}

const escaped = (text: string) =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

/** The text in pieces of whole lines; a fence across two pieces is closed and opened again. */
function pieces(text: string): string[] {
  const found: string[] = [];
  let piece = "";
  let fence = "";
  for (const line of text.split("\n").flatMap(cut)) {
    if (piece !== "" && piece.length + line.length > sectionMax) {
      found.push(fence ? `${piece}\n${fence}` : piece);
      piece = fence;
      if (found.length === sectionsMax)
        return [...found.slice(0, -1), `${found.at(-1)}\n\n… cut; the whole is in Pinion`];
    }
    piece = piece === "" ? line : `${piece}\n${line}`;
    const [, mark] = /^\s*(`{3,}|~{3,})/.exec(line) ?? [];
    if (mark && fence === "") fence = mark;
    else if (mark?.startsWith(fence)) fence = "";
  }
  if (piece.trim() !== "") found.push(piece);
  return found;
}

/** The line in parts, none of which begins or ends within a character. */
function cut(line: string): string[] {
  const parts: string[] = [];
  let left = line;
  while (left.length > sectionMax) {
    const isSplit = (left.codePointAt(sectionMax - 1) ?? 0) > 0xffff;
    const end = isSplit ? sectionMax - 1 : sectionMax;
    parts.push(left.slice(0, end));
    left = left.slice(end);
  }
  return [...parts, left];
}
