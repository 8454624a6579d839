{{- define "keywarp.labels" -}}
app.kubernetes.io/name: keywarp
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "keywarp.metadata" -}}
{{- include "keywarp.labels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "keywarp.name" -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- /* The most servers that there may be, for each of which the proxy has a place. */ -}}
{{- define "keywarp.most" -}}
{{ ternary .Values.autoscaling.max .Values.servers.count .Values.autoscaling.enabled }}
{{- end }}

{{- define "keywarp.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
