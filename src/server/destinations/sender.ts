/** Sends a delivery to its destination, with the destination's current settings. */
import { Refusal } from "../../errors.ts";
import type { Reach } from "../../network/addresses.ts";
import type { Send, Sent } from "../../scheduler/deliverer.ts";
import { isReference, type Keyring, type References, requireReference } from "../../secrets.ts";
import * as members from "../../store/people/orgs/members.ts";
import type { Db } from "../../store/pg/database.ts";
import type { Facts } from "../../store/work/messages/delivery-facts.ts";
import { placeOf } from "../../store/work/messages/destination-secrets.ts";
import * as destinations from "../../store/work/messages/destinations.ts";
import { sendEmail } from "./email.ts";
import { createHosts, type Hosts } from "./hosts.ts";
import { type Message, messageOf } from "./message.ts";
import { type SlackAccess, sendSlack } from "./slack.ts";
import { sendWebhook } from "./webhook.ts";

export type SenderOptions = {
  /** Across orgs. */
  db: Db;
  reach: Reach;
  smtp: { url: string; from: string } | undefined;
  keyring: Keyring;
  references: References;
  publicUrl: string | undefined;
  toPlatform: ToPlatform;
};

/** Posts a text in Markdown to a chat of a running platform, from any replica. */
export type ToPlatform = (
  to: { orgId: string; stableId: string; chat: string },
  message: { id: string; text: string },
) => Promise<Sent>;

type Row = destinations.DestinationRow;

const slackApiUrl = "https://slack.com/api";

export function createSender(options: SenderOptions): Send {
  const { db } = options;
  const hosts = createHosts();
  return async (delivery, facts: Facts, signal) => {
    const found = await destinations.findAll(db, [delivery]);
    const row = found.get(delivery.destinationId);
    if (!row) return { outcome: "refused", status: 0, error: "the destination is gone" };
    const message = messageOf(delivery, facts, options.publicUrl);
    try {
      return await sends[row.kind](row, message, { ...options, hosts, signal });
    } catch (error) {
      // A secret that cannot be decrypted, or a reference without its secret: the operator can
      // correct both.
      if (error instanceof Refusal) return { outcome: "failed", status: 0, error: error.message };
      throw error;
    }
  };
}

type How = SenderOptions & { hosts: Hosts; signal: AbortSignal };

const sends: Record<destinations.DestinationKind, (row: Row, message: Message, how: How) => Promise<Sent>> = {
  webhook(row, message, how) {
    const current = opened(row, "signing_secret", how);
    const { pastSecret } = row;
    const isPastGood = (row.pastSecretUntil?.getTime() ?? 0) > Date.now();
    const past = pastSecret !== null && isPastGood ? [open(row, "signing_secret", pastSecret, how)] : [];
    const url = String(row.config.url);
    return how.hosts.at(url, () => sendWebhook(message, { ...how, url, secrets: [current, ...past] }));
  },
  slack(row, message, how) {
    const access: SlackAccess = Object.hasOwn(row.secrets, "webhook_url")
      ? { webhookUrl: opened(row, "webhook_url", how) }
      : {
          botToken: opened(row, "bot_token", how),
          channel: String(row.config.channel ?? ""),
          apiUrl: String(row.config.apiUrl || slackApiUrl),
        };
    const url = "webhookUrl" in access ? access.webhookUrl : access.apiUrl;
    return how.hosts.at(url, () => sendSlack(message, { ...how, access }));
  },
  async platform({ orgId, config }, { id, title, body, url }, how) {
    const link = url ? `[Open in Pinion](${url})` : "";
    const text = [`**${title}**`, body, link].filter(Boolean).join("\n\n");
    const to = { orgId, stableId: String(config.platformId), chat: String(config.chat) };
    return how.toPlatform(to, { id, text });
  },
  async email(row, message, how) {
    const own = Object.hasOwn(row.secrets, "smtp_url");
    const url = own ? opened(row, "smtp_url", how) : how.smtp?.url;
    const from = String(row.config.from || how.smtp?.from || "");
    if (url === undefined || from === "") {
      return {
        outcome: "failed",
        status: 0,
        error: "the server has no SMTP server; set PINION_SMTP_URL and PINION_MAIL_FROM",
      };
    }
    const named = (row.config.to as string[] | undefined) ?? [];
    const to = named.length > 0 ? named : await members.findAdminAddresses(how.db, { orgId: row.orgId });
    if (to.length === 0) {
      return {
        outcome: "failed",
        status: 0,
        error: "no owner or admin of the org has an address; name some in `to`",
      };
    }
    const mailbox = { url, from, to, reach: own ? how.reach : undefined };
    return how.hosts.at(url, () => sendEmail(message, { mailbox, signal: how.signal }));
  },
};

function opened(row: Row, field: string, how: How): string {
  return open(row, field, row.secrets[field] ?? "", how);
}

function open(row: Row, field: string, stored: string, { keyring, references }: How): string {
  if (!isReference(stored)) return keyring.open(stored, placeOf({ ...row, field }));
  const name = requireReference(stored, field);
  return (
    references.find(row.orgId, name) ??
    ((): never => {
      throw new Refusal("failed_precondition", `the server has no secret://${name} for this org`);
    })()
  );
}
