{{- define "walhook.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "walhook.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains (include "walhook.name" .) .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "walhook.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "walhook.selector" -}}
app.kubernetes.io/name: {{ include "walhook.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- /* Of the pods of a role; of all of them, where there are no roles. Takes a dict: root, role. */ -}}
{{- define "walhook.memberSelector" -}}
{{ include "walhook.selector" .root }}
{{- with .role }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{- /* Takes a dict: root, role. The whole name has room for what Kubernetes appends to it. */ -}}
{{- define "walhook.memberName" -}}
{{- $name := include "walhook.fullname" .root -}}
{{- if .role -}}
{{- printf "%s-%s" ($name | trunc 55 | trimSuffix "-") .role -}}
{{- else -}}
{{- $name -}}
{{- end -}}
{{- end -}}

{{- /* The section of the configuration that names the broker, of the values of `relay`. */ -}}
{{- define "walhook.relay" -}}
{{- $isWritten := regexMatch "(?m)^\\s*\\[relay\\]" .Values.config -}}
{{- if and .Values.roles.enabled (not .Values.relay.url) (not $isWritten) -}}
{{- fail "roles.enabled needs a broker: name it in relay.url, or write a section [relay] into config" -}}
{{- end -}}
{{- if and .Values.relay.url $isWritten -}}
{{- fail "the broker is named twice: leave relay.url empty, or [relay] out of config" -}}
{{- end -}}
{{- with .Values.relay -}}
{{- if .url -}}
[relay]
url = {{ .url | toJson }}
partitions = {{ .partitions | int }}
replicas = {{ .replicas | int }}
stream_size = {{ .streamSize | toJson }}
patience = {{ .patience | toJson }}
{{- with .credentialsEnv }}
credentials = { env = {{ . | toJson }} }
{{- end }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "walhook.labels" -}}
{{ include "walhook.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "walhook.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "walhook.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "walhook.image" -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
