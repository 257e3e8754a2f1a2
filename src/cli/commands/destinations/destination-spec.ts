import { create } from "@bufbuild/protobuf";
import { type SecretValue, SecretValueSchema } from "#gen/pinion/v1/agent_pb.js";
import {
  type DestinationSpec,
  DestinationSpecSchema,
  EmailDestinationSchema,
  PlatformDestinationSchema,
  SlackDestinationSchema,
  WebhookDestinationSchema,
} from "#gen/pinion/v1/destination_pb.js";
import type { Cli } from "../../cli.ts";
import { exitCodes, Failure } from "../../failures.ts";

/** Options of `destinations create` and `update`. */
export type SpecOptions = {
  name?: string;
  alerts?: boolean;
  webhook?: string;
  secretEnv?: string;
  slackWebhookEnv?: string;
  slackBotEnv?: string;
  channel?: string;
  slackApi?: string;
  email?: string;
  smtpEnv?: string;
  from?: string;
  platform?: string;
  chat?: string;
};

/** The spec changed by the options. */
export function specOf(cli: Cli, options: SpecOptions, before: DestinationSpec): DestinationSpec {
  const spec = create(DestinationSpecSchema, before);
  if (options.name !== undefined) spec.name = options.name;
  if (options.alerts !== undefined) spec.takesAlerts = options.alerts;
  const { webhook, secretEnv, slackWebhookEnv, slackBotEnv, channel, slackApi, email, smtpEnv, from } =
    options;
  const { platform, chat } = options;
  const kinds = [webhook, slackWebhookEnv, slackBotEnv, email, platform].filter((one) => one !== undefined);
  if (kinds.length > 1) throw new Failure(exitCodes.usage, "a destination is of one kind");
  const secret = (variable: string) => secretFrom(cli, variable);
  const kindOf = (kind: "webhook" | "slack" | "email" | "platform", isNamed: boolean) =>
    isNamed || (spec.kind.case === kind && kinds.length === 0);
  if (kindOf("webhook", webhook !== undefined)) {
    const value = spec.kind.case === "webhook" ? spec.kind.value : create(WebhookDestinationSchema);
    if (webhook !== undefined) value.url = webhook;
    if (secretEnv !== undefined) value.signingSecret = secret(secretEnv);
    spec.kind = { case: "webhook", value };
  } else if (kindOf("slack", slackWebhookEnv !== undefined || slackBotEnv !== undefined)) {
    const value = spec.kind.case === "slack" ? spec.kind.value : create(SlackDestinationSchema);
    if (slackWebhookEnv !== undefined) value.access = { case: "webhookUrl", value: secret(slackWebhookEnv) };
    if (slackBotEnv !== undefined) value.access = { case: "botToken", value: secret(slackBotEnv) };
    if (channel !== undefined) value.channel = channel;
    if (slackApi !== undefined) value.apiUrl = slackApi;
    spec.kind = { case: "slack", value };
  } else if (kindOf("email", email !== undefined)) {
    const value = spec.kind.case === "email" ? spec.kind.value : create(EmailDestinationSchema);
    if (email !== undefined) value.to = email === "admins" ? [] : email.split(",").map((one) => one.trim());
    if (smtpEnv !== undefined) value.smtpUrl = secret(smtpEnv);
    if (from !== undefined) value.from = from;
    spec.kind = { case: "email", value };
  } else if (kindOf("platform", platform !== undefined)) {
    const value = spec.kind.case === "platform" ? spec.kind.value : create(PlatformDestinationSchema);
    if (platform !== undefined) value.platformId = platform;
    if (chat !== undefined) value.chat = chat;
    spec.kind = { case: "platform", value };
  }
  return spec;
}

function secretFrom(cli: Cli, variable: string): SecretValue {
  const value = cli.env[variable];
  if (!value) throw new Failure(exitCodes.usage, `${variable} is not set`);
  return create(SecretValueSchema, { kind: { case: "value", value } });
}
