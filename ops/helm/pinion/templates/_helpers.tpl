{{/* The release's name; with another name than the chart's, both. */}}
{{- define "pinion.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name }}{{ end -}}
{{- end }}
{{- define "pinion.selector" -}}
app: {{ include "pinion.name" . | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- define "pinion.labels" -}}
{{ include "pinion.selector" . }}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}
{{- define "pinion.secret" -}}
{{- if .Values.secret.existing }}{{ .Values.secret.existing }}{{ else }}{{ include "pinion.name" . }}{{ end -}}
{{- end }}
{{- define "pinion.account" -}}
{{- if .Values.serviceAccount.existing }}{{ .Values.serviceAccount.existing }}{{ else }}{{ include "pinion.name" . }}{{ end -}}
{{- end }}
