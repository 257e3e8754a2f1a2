import { create } from "@bufbuild/protobuf";
import { type SecretValue, SecretValueSchema } from "#gen/pinion/v1/agent_pb.js";
import {
  type Delivery,
  DeliverySchema,
  DeliveryState,
  type Destination,
  DestinationSchema,
  type DestinationSpec,
  DestinationSpecSchema,
  NotifyWhen,
} from "#gen/pinion/v1/destination_pb.js";
import { refuse } from "../../../errors.ts";
import { credentialsProblem } from "../../../network/credentials.ts";
import { isReference, newSigningSecret, requireReference, type WantedSecret } from "../../../secrets.ts";
import { storableText } from "../../../store/pg/values/storable.ts";
import type { DeliveryRow } from "../../../store/work/messages/deliveries.ts";
import type * as destinations from "../../../store/work/messages/destinations.ts";
import { isSigningSecret } from "../../destinations/webhook.ts";
import { given } from "./given.ts";
import { timestampOf } from "./moments.ts";

/** Destinations and deliveries between rows and messages. */

type Row = destinations.DestinationRow;
type Count = { pending: number; dead: number };

export function destinationMessage(row: Row, count: Count = { pending: 0, dead: 0 }): Destination {
  return create(DestinationSchema, {
    id: row.id,
    slug: row.slug,
    spec: specMessage(row),
    version: row.version,
    createdAt: timestampOf(row.createdAt),
    updatedAt: timestampOf(row.updatedAt),
    lastDeliveredAt: timestampOf(row.lastDeliveredAt),
    pendingDeliveries: count.pending,
    deadDeliveries: count.dead,
    lastError: row.lastError,
  });
}

/** The message of a secret: sending it back unchanged keeps the secret. */
function secretOf({ secrets }: Row, field: string): SecretValue | undefined {
  const stored = Object.hasOwn(secrets, field) ? secrets[field] : undefined;
  if (stored === undefined) return undefined;
  return create(SecretValueSchema, {
    kind: isReference(stored) ? { case: "value", value: stored } : { case: "keep", value: true },
  });
}

function specMessage(row: Row): DestinationSpec {
  const { config, secrets } = row;
  return create(DestinationSpecSchema, {
    name: row.name,
    takesAlerts: row.takesAlerts,
    kind: {
      webhook: () =>
        ({
          case: "webhook",
          value: { url: config.url, ...present("signingSecret", secretOf(row, "signing_secret")) },
        }) as const,
      slack: () => {
        const field = Object.hasOwn(secrets, "webhook_url") ? "webhook_url" : "bot_token";
        const access = {
          case: field === "webhook_url" ? ("webhookUrl" as const) : ("botToken" as const),
          value: secretOf(row, field) ?? create(SecretValueSchema),
        };
        return {
          case: "slack",
          value: { access, channel: config.channel ?? "", apiUrl: config.apiUrl ?? "" },
        } as const;
      },
      platform: () =>
        ({ case: "platform", value: { platformId: config.platformId, chat: config.chat } }) as const,
      email: () =>
        ({
          case: "email",
          value: {
            to: config.to ?? [],
            from: config.from ?? "",
            ...present("smtpUrl", secretOf(row, "smtp_url")),
          },
        }) as const,
    }[row.kind](),
  });
}

function present<Name extends string, Value>(name: Name, value: Value | undefined) {
  return value === undefined ? {} : ({ [name]: value } as Record<Name, Value>);
}

type Values = destinations.DestinationValues & { made?: string };
type Common = Pick<destinations.DestinationValues, "name" | "takesAlerts">;
type KindOf<Case> = Extract<DestinationSpec["kind"], { case: Case }>["value"];

/** The values of a spec; `made`: the new signing secret of a webhook without one. */
export function destinationValues(
  spec: DestinationSpec,
  options: { current?: Row | undefined; hasServerSmtp: boolean },
): Values {
  const common = { name: spec.name, takesAlerts: spec.takesAlerts ?? true };
  const { kind } = spec;
  switch (kind.case) {
    case "webhook":
      return webhookValues(common, kind.value, options.current);
    case "slack":
      return slackValues(common, kind.value);
    case "platform": {
      const { platformId, chat } = kind.value;
      return { ...common, kind: "platform", config: { platformId, chat: storableText(chat) }, secrets: {} };
    }
    case "email":
      return emailValues(common, kind.value, options);
    default:
      return refuse("invalid_argument", "spec: name a kind: webhook, slack, email or platform", {
        field: "spec",
      });
  }
}

function webhookValues(common: Common, { url, signingSecret }: KindOf<"webhook">, current?: Row): Values {
  requireUrl(url, "spec.webhook.url");
  const field = "spec.webhook.signing_secret";
  const asked = wanted(signingSecret, field);
  if (asked && asked !== "keep" && !isReference(asked.value) && !isSigningSecret(asked.value)) {
    refuse("invalid_argument", `${field}: must be "whsec_" and 24 to 64 bytes in base64`, { field });
  }
  const values = { ...common, kind: "webhook" as const, config: { url } };
  if (asked || current) return { ...values, secrets: { signing_secret: asked ?? "keep" } };
  const made = newSigningSecret();
  return { ...values, secrets: { signing_secret: { value: made } }, made };
}

function slackValues(common: Common, { access, channel, apiUrl }: KindOf<"slack">): Values {
  const isBot = access.case === "botToken";
  const name = isBot ? "bot_token" : "webhook_url";
  const field = `spec.slack.${name}`;
  const secret = given(wanted(access.value, field), field);
  if (isBot && channel === "")
    refuse("invalid_argument", "spec.slack.channel: a bot needs one", { field: "spec.slack.channel" });
  if (!isBot && channel !== "") {
    const why = "an incoming webhook has its channel already; leave it empty";
    refuse("invalid_argument", `spec.slack.channel: ${why}`, { field: "spec.slack.channel" });
  }
  if (!isBot && secret !== "keep" && !isReference(secret.value)) requireUrl(secret.value, field);
  if (apiUrl !== "") requireUrl(apiUrl, "spec.slack.api_url");
  const config = { ...(channel ? { channel } : {}), ...(apiUrl ? { apiUrl } : {}) };
  return { ...common, kind: "slack", config, secrets: { [name]: secret } };
}

function emailValues(
  common: Common,
  { to, from, smtpUrl }: KindOf<"email">,
  { hasServerSmtp }: { hasServerSmtp: boolean },
): Values {
  const field = "spec.email.smtp_url";
  const smtp = wanted(smtpUrl, field);
  if (!smtp && !hasServerSmtp) {
    refuse(
      "failed_precondition",
      "the server has no SMTP server (PINION_SMTP_URL, PINION_MAIL_FROM); name one in spec.email.smtp_url",
      { field },
    );
  }
  if (smtp && from === "")
    refuse("invalid_argument", "spec.email.from: is needed with smtp_url", { field: "spec.email.from" });
  if (smtp && smtp !== "keep" && !isReference(smtp.value)) {
    const url = URL.parse(smtp.value);
    if (!url || (url.protocol !== "smtp:" && url.protocol !== "smtps:"))
      refuse("invalid_argument", `${field}: write smtp://user:password@host:587 or smtps://…`, { field });
    requirePort(url, field);
    const problem = credentialsProblem(url);
    if (problem) refuse("invalid_argument", `${field}: ${problem}`, { field });
  }
  const config = { ...(to.length > 0 ? { to } : {}), ...(from ? { from } : {}) };
  return { ...common, kind: "email", config, secrets: smtp ? { smtp_url: smtp } : {} };
}

function wanted(secret: SecretValue | undefined, field: string): WantedSecret | undefined {
  if (!secret || secret.kind.case === undefined) return undefined;
  if (secret.kind.case === "keep") return "keep";
  if (isReference(secret.kind.value)) requireReference(secret.kind.value, field);
  return { value: secret.kind.value };
}

/** The URLs of a spec's destination that are readable or newly given, to check the hosts. */
export function urlsOf(values: destinations.DestinationValues): { field: string; url: URL }[] {
  const { webhook_url: webhookUrl, smtp_url: smtpUrl } = values.secrets;
  const dialled = (field: string, secret: WantedSecret | undefined) =>
    secret && secret !== "keep" && !isReference(secret.value) ? [{ field, url: new URL(secret.value) }] : [];
  return [
    ...(values.kind === "webhook" ? [{ field: "spec.webhook.url", url: new URL(values.config.url) }] : []),
    ...(values.config.apiUrl ? [{ field: "spec.slack.api_url", url: new URL(values.config.apiUrl) }] : []),
    ...dialled("spec.slack.webhook_url", webhookUrl),
    ...dialled("spec.email.smtp_url", smtpUrl),
  ];
}

function requireUrl(text: string, field: string): void {
  const url = URL.parse(text);
  if (!url || (url.protocol !== "https:" && url.protocol !== "http:"))
    refuse("invalid_argument", `${field}: must be an http:// or https:// URL`, { field });
  if (url.username !== "" || url.password !== "")
    refuse("invalid_argument", `${field}: must hold no user name or password`, { field });
  requirePort(url, field);
}

/** Node dials the usual port in place of port 0, and so another receiver. */
function requirePort(url: URL, field: string): void {
  if (url.port === "0") refuse("invalid_argument", `${field}: nothing listens on port 0`, { field });
}

const stateMessages: Record<DeliveryRow["state"], DeliveryState> = {
  pending: DeliveryState.PENDING,
  delivered: DeliveryState.DELIVERED,
  dead: DeliveryState.DEAD,
};
export const statesByMessage = new Map(
  Object.entries(stateMessages).map(([state, message]) => [message, state as DeliveryRow["state"]]),
);

const whenMessages: Record<DeliveryRow["reason"], NotifyWhen> = {
  "": NotifyWhen.UNSPECIFIED,
  always: NotifyWhen.ALWAYS,
  failure: NotifyWhen.FAILURE,
  recovery: NotifyWhen.RECOVERY,
  change: NotifyWhen.CHANGE,
  attention: NotifyWhen.ATTENTION,
  question: NotifyWhen.QUESTION,
};

export function deliveryMessage(row: DeliveryRow): Delivery {
  return create(DeliverySchema, {
    id: row.id,
    destinationId: row.destinationId,
    destinationSlug: row.destinationSlug,
    watcherId: row.watcherId ?? "",
    watcherSlug: row.watcherSlug ?? "",
    runId: row.runId ?? "",
    kind: row.kind,
    when: whenMessages[row.reason],
    state: stateMessages[row.state],
    attempts: row.attempts,
    lastStatus: row.lastStatus,
    lastError: row.lastError,
    createdAt: timestampOf(row.createdAt),
    nextAttemptAt: row.state === "pending" ? timestampOf(row.nextAt) : undefined,
    endedAt: timestampOf(row.endedAt),
  });
}
