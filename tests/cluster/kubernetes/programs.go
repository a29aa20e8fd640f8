package main

import (
	"context"
	"os"

	_ "k8s.io/client-go/plugin/pkg/client/auth" // kubectl against a cluster that is not ours
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	kubectlcmd "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserverapp "k8s.io/kubernetes/cmd/kube-apiserver/app"
	managerapp "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxyapp "k8s.io/kubernetes/cmd/kube-proxy/app"
	schedulerapp "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubeletapp "k8s.io/kubernetes/cmd/kubelet/app"
)

func apiserver() int         { return cli.Run(apiserverapp.NewAPIServerCommand()) }
func controllerManager() int { return cli.Run(managerapp.NewControllerManagerCommand()) }
func proxy() int             { return cli.Run(proxyapp.NewProxyCommand()) }
func scheduler() int         { return cli.Run(schedulerapp.NewSchedulerCommand()) }
func kubelet() int           { return cli.Run(kubeletapp.NewKubeletCommand(context.Background())) }

func kubectl() int {
	// kubectl logs while it builds its command, so the verbosity must be known before.
	_, _ = logs.GlogSetter(kubectlcmd.GetLogVerbosity(os.Args))
	if err := cli.RunNoErrOutput(kubectlcmd.NewDefaultKubectlCommand()); err != nil {
		kubectlutil.CheckErr(err) // prints the error as kubectl does, and exits
	}
	return 0
}
